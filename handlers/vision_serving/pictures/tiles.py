"""Small objects in large images: the tiles that an image is cut into."""

import math
from typing import TypeGuard

from vision_serving.errors import PayloadTooLargeError
from vision_serving.geometry import Region, SizeHW
from vision_serving.options import DetectionOptions, Options


def is_tiled(options: Options) -> TypeGuard[DetectionOptions]:
    return isinstance(options, DetectionOptions) and options.tile_size > 0


def list_regions(source_hw: SizeHW, options: Options) -> list[Region]:
    """Return what the model is to see: the whole image, then its tiles, row by row, where it is larger than a tile."""
    height, width = source_hw
    whole = (0, 0, width, height)
    if not is_tiled(options):
        return [whole]
    tops, lefts = (_list_starts(side, options) for side in source_hw)
    size = options.tile_size
    tiles = [(x, y, min(x + size, width), min(y + size, height)) for y in tops for x in lefts]
    return [whole, *(tile for tile in tiles if tile != whole)]


def _list_starts(side: int, options: DetectionOptions) -> list[int]:
    """Return where the tiles along a side begin.

    Evenly, with at least the overlap asked for, the last one at the end.
    """
    room = side - options.tile_size
    if room <= 0:
        return [0]
    steps = math.ceil(room / (options.tile_size * (1 - options.tile_overlap)))
    return [round(room * step / steps) for step in range(steps + 1)]


def check_tile_count(source_hw: SizeHW, options: Options, max_tiles: int, images: int) -> None:
    """Raises PayloadTooLargeError for an image of more tiles than its share of what a request of so many may have."""
    if not is_tiled(options):
        return
    tops, lefts = (len(_list_starts(side, options)) for side in source_hw)
    if tops * lefts > max(1, max_tiles // images):  # an image that is one tile is not cut
        share = f" in a request, {max_tiles // images} for each of its {images} images" if images > 1 else ""
        raise PayloadTooLargeError(
            f"an image of {source_hw[1]} x {source_hw[0]} pixels has {tops * lefts} tiles of {options.tile_size} with "
            f"an overlap of {options.tile_overlap:g}; the limit is {max_tiles}{share}; choose a larger tile_size"
        )
