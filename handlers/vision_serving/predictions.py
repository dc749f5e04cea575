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


@dataclass(frozen=True)
class HeatMap:
    """What each cell of a picture did for a class, rows from the top; `box` is where the map lies, as in a Detection.

    The box ends outside of the picture where the model saw padding, and inside where it saw a crop.
    """

    height: int
    width: int
    box: tuple[float, float, float, float]
    values: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Explanation:
    """Which parts of an image speak for a class, by one method of `attribution.py`."""

    class_id: int
    label: str
    score: float
    method: str
    heat_map: HeatMap
    image: ImageSize
