"""The images of a batch of requests, decoded a few at a time, so that memory does not grow with their number."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from vision_serving.config import ImageLimits, Options
from vision_serving.errors import ImageDecodeError, OutOfResourcesError, RequestError
from vision_serving.images import Image, decode_image
from vision_serving.metrics import StageTimings
from vision_serving.payload import Encoded, Payload

logger = logging.getLogger(__name__)

Place = tuple[int, int]  # number of the request in the batch, number of the image in the request


@dataclass(frozen=True)
class Item:
    """One decoded image with the options of its request."""

    place: Place
    image: Image
    options: Options


@dataclass
class Chunk:
    """Images that are held in memory together, and the errors met on the way."""

    items: list[Item] = field(default_factory=list)
    errors: dict[Place, RequestError] = field(default_factory=dict)
    pixels: int = 0


def decode_in_chunks(
    payloads: Sequence[Payload], options: Sequence[Options | RequestError], limits: ImageLimits, timings: StageTimings
) -> Iterator[Chunk]:
    """Decode what has valid options, in order, in chunks of at most `max_pixels` (or one image)."""
    chunk = Chunk()
    for place, encoded, chosen in _places(payloads, options):
        with timings.measure("decode"):
            image = _decode(encoded, limits)
        if isinstance(image, RequestError):
            chunk.errors[place] = image
            continue
        pixels = image.shape[0] * image.shape[1]
        if chunk.items and chunk.pixels + pixels > limits.max_pixels:
            yield chunk
            chunk = Chunk()
        chunk.items.append(Item(place, image, chosen))
        chunk.pixels += pixels
    yield chunk


def _places(
    payloads: Sequence[Payload], options: Sequence[Options | RequestError]
) -> Iterator[tuple[Place, Encoded, Options]]:
    for request, (payload, chosen) in enumerate(zip(payloads, options, strict=True)):
        if not isinstance(chosen, RequestError):
            for number, encoded in enumerate(payload.images):
                yield (request, number), encoded, chosen


def _decode(encoded: Encoded, limits: ImageLimits) -> Image | RequestError:
    if isinstance(encoded, RequestError):
        return encoded
    try:
        return decode_image(encoded, limits)
    except RequestError as error:
        return error
    except MemoryError:
        return OutOfResourcesError("there is not enough memory to decode this image")
    except Exception as error:  # the border: whatever a decoder raises must stay with its own image
        logger.error("decoding one image failed in an unknown way", exc_info=error)
        return ImageDecodeError("the image is damaged or incomplete")
