"""The answer for one image: JSON -> frozen dataclasses. What is not known yet is kept in `extra`.

They mirror the server's own predictions, whose code needs PyTorch; a client has none.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from vision_client.errors import PredictionError

Fields = Mapping[str, Any]


@dataclass(frozen=True)
class ClassScore:
    """One class with its probability."""

    class_id: int
    label: str
    score: float
    extra: Fields = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Detection:
    """One object; `box` is (x1, y1, x2, y2) in pixels of the upright image, unless an option asked for another form.

    corners: x and y of the four of a turned box, of which `box` is the hull; None of other models.
    """

    class_id: int
    label: str
    score: float
    box: tuple[float, float, float, float]
    corners: tuple[float, ...] | None = None
    extra: Fields = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class ImageSize:
    """Size in pixels of the upright image."""

    width: int
    height: int


@dataclass(frozen=True)
class Prediction:
    """The answer for one image. Of a kind that this package does not know, all of it is in `extra`."""

    extra: Fields = field(default_factory=dict, hash=False, kw_only=True)


@dataclass(frozen=True)
class Classification(Prediction):
    """The best classes, best first. A model of independent scores may find none."""

    classes: tuple[ClassScore, ...]

    @property
    def top(self) -> ClassScore:
        return self.classes[0]


@dataclass(frozen=True)
class Embedding(Prediction):
    """The vector of the image."""

    embedding: tuple[float, ...]


@dataclass(frozen=True)
class Detections(Prediction):
    """The objects found, best first."""

    detections: tuple[Detection, ...]
    image: ImageSize


def read_answer(body: bytes) -> Prediction:
    """Return the JSON of one image. Raises PredictionError when it is not what the HTTP contract says."""
    try:
        document = json.loads(body)
        reader = next((READERS[key] for key in READERS if key in document), None)
        return Prediction(extra={**document}) if reader is None else reader(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        start = body[:200].decode("utf-8", errors="replace")
        raise PredictionError(200, "UnexpectedAnswer", f"expected a prediction, got {start!r}") from error


def _read_classification(document: Fields) -> Classification:
    classes = tuple(
        ClassScore(int(entry["class_id"]), str(entry["label"]), float(entry["score"]), _rest(entry, ClassScore))
        for entry in document["classes"]
    )
    return Classification(classes, extra=_rest(document, Classification))


def _read_detections(document: Fields) -> Detections:
    image = ImageSize(int(document["image"]["width"]), int(document["image"]["height"]))
    found = tuple(_read_detection(entry) for entry in document["detections"])
    return Detections(found, image, extra=_rest(document, Detections))


def _read_detection(entry: Fields) -> Detection:
    x1, y1, x2, y2 = map(float, entry["box"])
    return Detection(
        class_id=int(entry["class_id"]),
        label=str(entry["label"]),
        score=float(entry["score"]),
        box=(x1, y1, x2, y2),
        corners=tuple(map(float, entry["corners"])) if "corners" in entry else None,
        extra=_rest(entry, Detection),
    )


def _read_embedding(document: Fields) -> Embedding:
    return Embedding(tuple(map(float, document["embedding"])), extra=_rest(document, Embedding))


READERS: dict[str, Callable[[Fields], Prediction]] = {
    "classes": _read_classification,
    "detections": _read_detections,
    "embedding": _read_embedding,
}


def _rest(document: Fields, known: Any) -> dict[str, Any]:
    names = {known_field.name for known_field in fields(known)}
    return {name: value for name, value in document.items() if name not in names}
