"""The images of a batch of requests, decoded and brought to model size by a few threads.

Decoded pixels live no longer than that: memory grows with the pixels of the model, not with those that people send.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Condition

from vision_serving.config import ColourConfig, ImageLimits, Options
from vision_serving.errors import RequestError
from vision_serving.images import Image, Shrink, open_image, read_pixels, wrap_pixels
from vision_serving.metrics import StageTimings
from vision_serving.payload import Payload
from vision_serving.preprocessing import ImageBatch
from vision_serving.tensor_requests import Picture, Pixels

Place = tuple[int, int]  # number of the request in the batch, number of the image in the request
Preprocess = Callable[[Sequence[Image]], ImageBatch]


@dataclass(frozen=True)
class Source:
    """One image as it came, with the options of its request."""

    place: Place
    picture: Picture
    options: Options


@dataclass(frozen=True)
class Item:
    """One image at model size, as a batch of its own, with the options of its request."""

    place: Place
    batch: ImageBatch
    options: Options


def list_sources(payloads: Sequence[Payload], options: Sequence[Options | RequestError]) -> list[Source]:
    """All images of the requests whose options are valid, in order."""
    return [
        Source((request, number), picture, chosen)
        for request, (payload, chosen) in enumerate(zip(payloads, options, strict=True))
        if not isinstance(chosen, RequestError)
        for number, picture in enumerate(payload.images)
    ]


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

    def prepare(self, sources: Sequence[Source], timings: StageTimings) -> tuple[list[Item], dict[Place, Exception]]:
        """The images that could be prepared, in order, and why the others could not. Never raises for one of them."""
        own_timings = [StageTimings() for _ in sources]
        started = time.perf_counter()
        batches = list(self._map(self._attempt, sources, own_timings))
        timings.add_shares((time.perf_counter() - started) * 1000, own_timings)
        pairs = list(zip(sources, batches, strict=True))
        items = [Item(source.place, batch, source.options) for source, batch in pairs if isinstance(batch, ImageBatch)]
        return items, {source.place: error for source, error in pairs if isinstance(error, Exception)}

    def _attempt(self, source: Source, timings: StageTimings) -> ImageBatch | Exception:
        try:
            return self._decode_and_preprocess(source.picture, timings)
        except Exception as error:  # the border: whatever happens to an image stays with it
            return error

    def _decode_and_preprocess(self, picture: Picture, timings: StageTimings) -> ImageBatch:
        if isinstance(picture, RequestError):
            raise picture
        if isinstance(picture, Pixels):
            image = wrap_pixels(picture.data, (picture.height, picture.width), self._limits)
            with timings.measure("preprocess"):
                return self._preprocess([image])
        with timings.measure("decode"):
            opened = open_image(picture, self._limits, self._shrink)
        with opened, self._budget.hold(opened.width * opened.height):
            with timings.measure("decode"):
                image = read_pixels(opened, self._colours)
            with timings.measure("preprocess"):
                return self._preprocess([image])
