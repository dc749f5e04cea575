"""PNG: opened as png_chunks.py reads it, with its transparent colour, and decoded where a cut file lacks no pixel."""

import io

import numpy as np
import PIL.Image
from PIL.ImageFile import ImageFile, _Tile

from vision_serving.pictures.colours import read_strips
from vision_serving.pictures.formats.base import Format, load_again, load_pixels
from vision_serving.pictures.formats.png_chunks import has_all_pixels, open_png

# Pillow brings the pixels of a PNG to 8 bits, but not the value that is transparent in it. By rawmode.
KEY_FACTORS = {"L;2": 85, "L;4": 17}
DEEP_GRAY, DEEP_RGB, LOW_BYTES = "I;16B", "RGB;16B", "RGB;16L"  # of RGB, Pillow keeps the high bytes, or the others


def _load(opened: ImageFile) -> PIL.Image.Image | None:
    """Decode a picture. Of 16 bits with a transparent colour, return where it is not, as Pillow would compare 8."""
    rawmode, key = opened.tile[0].args, opened.info.get("transparency")
    if key is None or rawmode not in (DEEP_GRAY, DEEP_RGB):
        if key is not None and rawmode in KEY_FACTORS:
            opened.info["transparency"] = key * KEY_FACTORS[rawmode]
        load_pixels(opened, _complete)
        return None
    del opened.info["transparency"]
    halves = [opened]
    if rawmode == DEEP_RGB:
        assert isinstance(opened.fp, io.BytesIO)
        low = PIL.Image.open(io.BytesIO(opened.fp.getvalue()), formats=("PNG",))
        low.tile = [tile._replace(args=LOW_BYTES) for tile in opened.tile]
        halves.append(low)
    for half in halves:
        load_pixels(half, _complete)
    wanted = [key] if rawmode == DEEP_GRAY else np.divmod(key, 256)
    alpha = np.zeros((opened.height, opened.width), np.uint8)
    for half, levels in zip(halves, wanted, strict=True):
        for rows, strip in read_strips(half):
            differs = strip != levels
            alpha[rows] |= differs if strip.ndim == 2 else differs.any(axis=2)
    np.multiply(alpha, 255, out=alpha)
    return PIL.Image.fromarray(alpha)


def _complete(opened: ImageFile, tiles: list[_Tile], encoded: bytes) -> bool:
    """Decode the rows that the decoder, which came to the end of its bytes, had still to copy from those before."""
    if not has_all_pixels(opened, encoded):
        return False
    opened.decoderconfig = ()  # Pillow adds to it at each load
    load_again(opened, tiles, encoded + bytes(8))
    return True


FORMAT = Format(
    suffixes=(".png",),
    signatures=((0, b"\x89PNG"),),
    open=open_png,
    load=_load,
    is_framed=True,
)
