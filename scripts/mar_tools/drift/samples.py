"""What the workers of a server kept of their predictions, read from their files."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from mar_tools.distributions import Distributions, SeenImage, count_images
from vision_serving.validation import find_near
from vision_serving.worker.sample_files import list_files
from vision_serving.worker.sample_settings import SHARE_KEY
from vision_serving.worker.server_settings import read_models, read_text

Record = Mapping[str, Any]
PREDICTED = "predicted"
KEYS = {"time", "version", "own_options", "images"}


@dataclass(frozen=True)
class Samples:
    """requests, images: how many. own_options: requests whose options decide which scores are answered, so that they
    cannot be compared. outcomes: how many images had each. first, last: times of requests."""

    requests: int
    images: int
    own_options: int
    outcomes: Mapping[str, int]
    distributions: Distributions
    first: str = ""
    last: str = ""

    @property
    def failed(self) -> int:
        """Return how many images got an error."""
        return sum(count for outcome, count in self.outcomes.items() if outcome.endswith("Error"))


def read_samples(
    folder: Path, version: str, all_classes: bool, since: datetime | None = None, most_images: int | None = None
) -> Samples:
    """Read the newest samples of a version in the folder of its model.

    all_classes: as of the reference. since: no older ones. most_images: no more, about.
    """
    chosen: list[Record] = []
    images = 0
    for record in list_records(folder, since):
        if record["version"] != version:
            continue
        chosen.append(record)
        images += len(record["images"])
        if most_images is not None and images >= most_images:
            break
    seen = [see_image(image, record, all_classes) for record in chosen for image in record["images"]]
    times = sorted(record["time"] for record in chosen)
    return Samples(
        requests=len(chosen),
        images=images,
        own_options=sum(record["own_options"] for record in chosen),
        outcomes=Counter(image["outcome"] for record in chosen for image in record["images"]),
        distributions=count_images(seen),
        first=times[0] if times else "",
        last=times[-1] if times else "",
    )


def list_records(folder: Path, since: datetime | None = None) -> Iterator[Record]:
    """Yield what the files of a model hold, the newest file first, and its last line first; torn lines are left out."""
    for path in reversed(list_files(folder)):
        try:
            content = b"" if since and path.stat().st_mtime < since.timestamp() else path.read_bytes()
        except FileNotFoundError:  # the ring goes on meanwhile
            continue
        for line in reversed(content.splitlines()):
            with suppress(AttributeError, TypeError, ValueError):  # a full disk cuts lines
                record = orjson.loads(line)
                if record.keys() >= KEYS and (since is None or datetime.fromisoformat(record["time"]) >= since):
                    yield record


def find_version(folder: Path) -> str | None:
    """Return the version of the newest file's last sample, None where there is no sample."""
    return next((str(record["version"]) for record in list_records(folder)), None)


def advise_sampling(config: Path, model: str) -> str:
    """Return what to do about a model without samples, by the `models` of a `config.properties`. Raises ConfigError."""
    models = read_models(read_text(config))
    if model not in models:
        near = find_near(model, models)
        if near is not None:
            return f"did you mean {near!r}?"
    elif any(version.get(SHARE_KEY) for version in models[model].values()):
        return f"it has a `{SHARE_KEY}`: restart if that is new, and wait for requests"
    return f"give it a `{SHARE_KEY}` in `models` of {config.name}, restart, and wait for requests"


def see_image(image: Mapping[str, Any], record: Record, all_classes: bool) -> SeenImage:
    """Return what a record says of an image. Its scores count where the request left them to the archive's options."""
    side = None if image["width"] is None else max(image["width"], image["height"])
    if record["own_options"] or image["outcome"] != PREDICTED or "scores" not in image:
        return SeenImage(longest_side=side, format=image["format"])
    scores = [(int(class_id), float(score)) for class_id, score in image["scores"]]
    return SeenImage(scores if all_classes else scores[:1], image.get("detections"), side, image["format"])
