"""lab/results/fidelity.json: one model a line, so that git shows what changed."""

from collections.abc import Mapping
from pathlib import Path

import orjson

from lab.fidelity.compared_models import Library
from vision_serving.validation import StrictModel, parse_config, read_json


class PixelDifference(StrictModel):
    """Of the library's pixels and ours, in levels of 255, over all values of all pictures.

    other_level  share of the values that are not the same level: more than half a level apart
    beyond_one   share of those that are more than a level apart
    largest      the largest difference
    """

    pictures: int
    other_level: float
    beyond_one: float
    largest: float


class AnswerDifference(StrictModel):
    """Of the network after the library's preprocessing, and of our archive, over some pictures.

    same_best      share of the pictures whose best class is the same
    snr_db         least signal-to-noise ratio of the logits
    matched_boxes  share of the boxes of both that have a partner, `compared_boxes` of them the library's
    least_iou      of the matched pairs
    difference     the largest one of a class's probability, or of the scores of a matched pair
    """

    pictures: int
    same_best: float | None = None
    matched_boxes: float | None = None
    compared_boxes: int | None = None
    least_iou: float | None = None
    snr_db: float | None = None
    difference: float


class ModelFidelity(StrictModel):
    """network: that answered in the place of a model that is slow. answers: None where only pixels are compared."""

    library: Library
    model: str
    settings: str
    network: str | None = None
    pixels: PixelDifference
    answers: AnswerDifference | None = None
    seconds: float

    @property
    def full_name(self) -> str:
        return f"{self.library}/{self.model}"


class Fidelity(StrictModel):
    date: str
    cpu: str
    versions: Mapping[str, str]
    rows: tuple[ModelFidelity, ...]


def read_fidelity(path: Path) -> Fidelity:
    """Raises ConfigError."""
    return parse_config(Fidelity, read_json(path), str(path))


def write_fidelity(fidelity: Fidelity, path: Path) -> None:
    head = orjson.dumps(fidelity.model_dump(mode="json", exclude={"rows"})).decode()[1:-1]
    rows = ",\n".join(orjson.dumps(row.model_dump(mode="json", exclude_none=True)).decode() for row in fidelity.rows)
    path.write_text(f'{{{head},"rows":[\n{rows}\n]}}\n', encoding="utf-8")
