"""What a sample says of a request: a JSON object in a line, of numbers and fixed words alone.

Neither labels nor messages, which may hold a client's text; of a request's own text the plain id alone.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any
from uuid import uuid4

from vision_serving.answers.responses import ModelIdentity
from vision_serving.config import ImageLimits
from vision_serving.errors import RequestError
from vision_serving.pictures.decoding import FULL_SIZE, open_image
from vision_serving.pictures.formats import FORMATS, SECOND_NAMES
from vision_serving.predictions import Classification, Detections
from vision_serving.requests.contents import Pixels, SentImage
from vision_serving.requests.payload import Payload
from vision_serving.results.outcome import ImageResult, Outcome, name_outcome
from vision_serving.worker.correlation import read_correlation
from vision_serving.worker.sample_files import SampledPicture

MOST_IMAGES = 16  # of one request
MOST_SCORES = 20  # of one image, best first
PIXELS = "pixels"  # the format of what came decoded
# Options that leave scores and classes as they are; others make an answer that is not to be compared.
HARMLESS = frozenset({"top_k", "box_format", "mask_format", "normalize"})


@dataclass(frozen=True)
class Taken:
    """A request that was chosen, as the worker had it, until its record is made elsewhere."""

    payload: Payload
    headers: Mapping[str, Any]
    outcome: Outcome
    status: int


def held_bytes(payload: Payload) -> int:
    """Return the bytes of a request's pictures."""
    return sum(len(_data_of(sent)) for sent in payload.images)


def make_record(
    taken: Taken, model: ModelIdentity, limits: ImageLimits, harmless: frozenset[str], with_pictures: bool
) -> tuple[dict[str, Any], list[SampledPicture]]:
    """Return the record of a request, and its pictures where they are wanted and came as files.

    Of a request with very many images, some are chosen by chance.
    """
    images, items = taken.payload.images, taken.outcome.items
    count = min(len(images), len(items))
    chosen = sorted(random.SystemRandom().sample(range(count), min(MOST_IMAGES, count)))
    key = uuid4().hex[:16]
    described, pictures = [], []
    for number in chosen:
        one = describe_image(images[number], items[number], limits)
        if with_pictures and isinstance(images[number], bytes) and one["format"] in FORMATS:
            suffix = FORMATS[one["format"]].suffixes[0]
            pictures.append(SampledPicture(f"{key}-{number}{suffix}", bytes(images[number])))  # type: ignore[arg-type]
            one["picture"] = pictures[-1].name
        described.append(one)
    record = {
        "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        "id": read_correlation(taken.headers).id,
        "model": model.name,
        "version": model.version,
        "status": taken.status,
        "own_options": any(name not in harmless for name in taken.payload.options),
        "count": count,
        "images": described,
    }
    return record, pictures


def describe_image(sent: SentImage, result: ImageResult, limits: ImageLimits) -> dict[str, Any]:
    """Return what is kept of an image: what it was, what came of it, and the best scores with their class ids."""
    found: dict[str, Any] = {"outcome": name_outcome(result), "bytes": len(_data_of(sent))}
    failed = isinstance(result, RequestError)
    kind, width, height = (None, None, None) if failed else describe_picture(sent, limits)
    found |= {"format": kind, "width": width, "height": height}
    if isinstance(result, Classification):
        found["scores"] = [[each.class_id, each.score] for each in result.classes[:MOST_SCORES]]
    elif isinstance(result, Detections):
        found["scores"] = [[each.class_id, each.score] for each in result.detections[:MOST_SCORES]]
        found["detections"] = len(result.detections)
    return found


def describe_picture(sent: SentImage, limits: ImageLimits) -> tuple[str | None, int | None, int | None]:
    """Return format, width and height as stored, None where they cannot be told. It reads the header alone."""
    if isinstance(sent, Pixels):
        return PIXELS, sent.width, sent.height
    if isinstance(sent, RequestError):
        return None, None, None
    try:
        with open_image(sent, limits) as opened:
            width, height = opened.info[FULL_SIZE]
            kind = opened.format or ""
    except RequestError:
        return None, None, None
    return SECOND_NAMES.get(kind, kind), width, height


def _data_of(sent: SentImage) -> Sequence[int]:
    if isinstance(sent, RequestError):
        return b""
    return sent.data if isinstance(sent, Pixels) else sent
