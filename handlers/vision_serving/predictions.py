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
class RunLengths:
    """A mask of the whole source image as COCO's compressed run lengths; `size` is (height, width)."""

    size: tuple[int, int]
    counts: str


Polygons = tuple[tuple[float, ...], ...]  # (x1, y1, x2, y2, ...) of each part, in pixels of the source image
Keypoint = tuple[float, float, float]  # x and y in pixels of the source image, score


@dataclass(frozen=True)
class MaskDetection(Detection):
    """Of a model with masks; None where the model itself would not answer this box, as in all of these."""

    mask: RunLengths | None


@dataclass(frozen=True)
class PolygonDetection(Detection):
    """Of a model with masks, for a request that asks for outlines."""

    polygons: Polygons | None


@dataclass(frozen=True)
class KeypointDetection(Detection):
    """Of a model with keypoints, always in the same order."""

    keypoints: tuple[Keypoint, ...] | None


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
