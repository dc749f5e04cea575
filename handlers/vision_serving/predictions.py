"""The answers for one image. orjson writes these dataclasses as the JSON of the HTTP contract."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ClassScore:
    """One class with its probability."""

    class_id: int
    label: str
    score: float


@dataclass(frozen=True)
class Classification:
    """The best classes of an image, best first."""

    classes: tuple[ClassScore, ...]


@dataclass(frozen=True)
class Detection:
    """One object; `box` is (x1, y1, x2, y2) in pixels of the upright source image."""

    class_id: int
    label: str
    score: float
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class ImageSize:
    """Size in pixels of the upright source image."""

    width: int
    height: int


@dataclass(frozen=True)
class Detections:
    """The objects in an image, best first."""

    detections: tuple[Detection, ...]
    image: ImageSize


Prediction = Classification | Detections
