"""The images of a batch of requests, decoded, cut into tiles where a request asks, and brought to model size.

By a few threads. Decoded pixels live no longer than that: memory grows with the pixels of the model, not with those
that people send.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from threading import Condition

import numpy as np

from vision_serving.config import ColourConfig, HandlerConfig, ImageLimits
from vision_serving.errors import PayloadTooLargeError, RequestError
from vision_serving.foreign_errors import try_stage
from vision_serving.options import Options
from vision_serving.pictures.decoding import (
    Image,
    Shrink,
    full_size_hw,
    open_image,
    read_pixels,
    shrink_jpeg,
    wrap_pixels,
)
from vision_serving.pictures.resizing import ImageBatch, spare_ratio
from vision_serving.pictures.tiles import check_tile_count, is_tiled, list_regions
from vision_serving.requests.contents import ImageIndex, Pixels, SentImage
from vision_serving.requests.payload import Payload
from vision_serving.timings import StageTimings

Preprocess = Callable[[Sequence[Image]], ImageBatch]


@dataclass(frozen=True)
class Source:
    """One image as it came, with the options of its request, which has so many `images`."""

    index: ImageIndex
    sent: SentImage
    options: Options
    images: int = 1


@dataclass(frozen=True)
class PreparedImage:
    """One image or tile at model size, as a batch of its own. The tiles of an image, and itself, have its index."""

    index: ImageIndex
    batch: ImageBatch
    options: Options


def check_cost(images: Sequence[SentImage], limits: ImageLimits) -> None:
    """Check what one request asks for. Raises PayloadTooLargeError."""
    count = len(images)
    if count > limits.max_images:
        raise PayloadTooLargeError(f"the request holds {count} images; the limit is {limits.max_images}")
    if count < 2 or count * limits.max_pixels <= limits.max_request_pixels:
        return
    pixels = sum(_count_pixels(image, limits) for image in images)
    if pixels > limits.max_request_pixels:
        raise PayloadTooLargeError(
            f"the request's {count} images have {pixels:,} pixels together; the limit is "
            f"{limits.max_request_pixels:,}: send them in several requests"
        )


def _count_pixels(sent: SentImage, limits: ImageLimits) -> int:
    """Return the pixels that the header states; 0 for an image that gets an error of its own."""
    if isinstance(sent, Pixels):
        return sent.height * sent.width
    if isinstance(sent, RequestError):
        return 0
    try:
        with open_image(sent, limits) as opened:
            return int(opened.width * opened.height)
    except RequestError:
        return 0


def list_sources(payloads: Sequence[Payload], options: Sequence[Options | RequestError]) -> list[Source]:
    """Return all images of the requests whose options are valid, in order."""
    return [
        Source((request, number), sent, chosen, len(payload.images))
        for request, (payload, chosen) in enumerate(zip(payloads, options, strict=True))
        if not isinstance(chosen, RequestError)
        for number, sent in enumerate(payload.images)
    ]


def split_sources(sources: Sequence[Source], limit: int) -> list[list[Source]]:
    """Return what to prepare together: `limit` images at a time, and alone each that is cut into tiles, which count."""
    whole = [source for source in sources if not is_tiled(source.options)]
    together = [whole[start : start + limit] for start in range(0, len(whole), limit)]
    return together + [[source] for source in sources if is_tiled(source.options)]


def find_shrink(config: HandlerConfig) -> Shrink | None:
    """Return what an archive allows to be done to images before they are decoded."""
    if not config.scaled_decoding:
        return None
    return partial(shrink_jpeg, spare=partial(spare_ratio, config=config.preprocessing))


class PixelBudget:
    """No more decoded pixels at a time than `limit`, or one image: the others wait."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._changed = Condition()

    @contextmanager
    def hold(self, pixels: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: self._held == 0 or self._held + pixels <= self._limit)
            self._held += pixels
        try:
            yield
        finally:
            with self._changed:
                self._held -= pixels
                self._changed.notify_all()


class Preparer:
    """Decodes images and brings them to model size in so many threads.

    preprocess: of a list of one image. shrink: what is done to an opened image before it is decoded.
    """

    def __init__(
        self,
        preprocess: Preprocess,
        limits: ImageLimits,
        threads: int,
        shrink: Shrink | None = None,
        colours: ColourConfig | None = None,
    ) -> None:
        self._preprocess = preprocess
        self._limits = limits
        self._colours = colours or ColourConfig()
        self._shrink = shrink
        self._budget = PixelBudget(limits.max_pixels)
        self._map = ThreadPoolExecutor(threads, "decode").map if threads > 1 else map

    def prepare(
        self, sources: Sequence[Source], timings: StageTimings
    ) -> tuple[list[PreparedImage], dict[ImageIndex, RequestError]]:
        """Return what could be prepared, in order, and why the rest could not. Never raises for one of them."""
        own_timings = [StageTimings() for _ in sources]
        started = time.perf_counter()
        batches = list(self._map(self._try_source, sources, own_timings))
        timings.add_shares((time.perf_counter() - started) * 1000, own_timings)
        pairs = list(zip(sources, batches, strict=True))
        prepared = [
            PreparedImage(source.index, batch, source.options)
            for source, found in pairs
            if not isinstance(found, RequestError)
            for batch in found
        ]
        return prepared, {source.index: error for source, error in pairs if isinstance(error, RequestError)}

    def _try_source(self, source: Source, timings: StageTimings) -> list[ImageBatch] | RequestError:
        return try_stage("inference", self._prepare_source, source, timings)

    def _prepare_source(self, source: Source, timings: StageTimings) -> list[ImageBatch]:
        sent = source.sent
        if isinstance(sent, RequestError):
            raise sent
        if isinstance(sent, Pixels):
            size_hw = (sent.height, sent.width)
            check_tile_count(size_hw, source.options, self._limits.max_tiles, source.images)
            image = wrap_pixels(sent.data, size_hw, self._limits)
            with self._budget.hold(size_hw[0] * size_hw[1]), timings.measure("preprocess"):
                return self._cut_and_preprocess(image, source.options)
        with timings.measure("decode"):
            opened = open_image(sent, self._limits, self._shrink)
        # Turning it upright swaps its sides, and changes no count.
        check_tile_count((opened.height, opened.width), source.options, self._limits.max_tiles, source.images)
        with opened, self._budget.hold(opened.width * opened.height):
            with timings.measure("decode"):
                image = read_pixels(opened, self._colours)
            with timings.measure("preprocess"):
                batches = self._cut_and_preprocess(image, source.options)
                return batches if self._shrink is None else [batch.of_source(full_size_hw(opened)) for batch in batches]

    def _cut_and_preprocess(self, image: Image, options: Options) -> list[ImageBatch]:
        """Return the image, and its tiles where its request asks for them, each as a batch of its own."""
        if not is_tiled(options):
            return [self._preprocess([image])]
        source_hw = (image.shape[0], image.shape[1])
        return [
            self._preprocess([np.ascontiguousarray(image[y1:y2, x1:x2])]).seen_in(source_hw, (x1, y1, x2, y2))
            for x1, y1, x2, y2 in list_regions(source_hw, options)
        ]
