"""The answers for one image. orjson writes these dataclasses as the JSON of the HTTP contract."""

from collections.abc import Callable
from dataclasses import dataclass, replace

Box = tuple[float, float, float, float]


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
class Embedding:
    """The vector of an image: what its network makes of it."""

    embedding: tuple[float, ...]


@dataclass(frozen=True)
class Detection:
    """One object; `box` is (x1, y1, x2, y2) in pixels of the upright source image, unless converted."""

    class_id: int
    label: str
    score: float
    box: Box


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
class OrientedDetection(Detection):
    """Of a model with turned boxes, of which `box` is the upright hull.

    corners: (x1, y1, x2, y2, x3, y3, x4, y4) in pixels of the source image, clockwise from the box's own top left one.
    """

    corners: tuple[float, ...]


@dataclass(frozen=True)
class ImageSize:
    """Size in pixels of the upright source image."""

    width: int
    height: int


@dataclass(frozen=True)
class Detections:
    """The objects in an image, best first."""

    detections: tuple[OrientedDetection | MaskDetection | PolygonDetection | KeypointDetection | Detection, ...]
    image: ImageSize


@dataclass(frozen=True)
class OrientedDetections(Detections):
    """Of a model with turned boxes: each detection has corners."""


@dataclass(frozen=True)
class ConvertedDetections(Detections):
    """With boxes in another form than corners in pixels, which the answer then names."""

    box_format: str


@dataclass(frozen=True)
class ConvertedOrientedDetections(ConvertedDetections):
    """Both; corners stay as they are."""


Prediction = Classification | Detections | Embedding


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


def convert_boxes(found: Detections, box_format: str) -> Detections:
    """Return boxes in the form that a request asks for, from xyxy in pixels, which is what all of the code has."""
    if box_format == "xyxy":
        return found
    convert, size = BOX_FORMATS[box_format], found.image
    detections = tuple(replace(each, box=convert(each.box, size)) for each in found.detections)
    is_oriented = isinstance(found, OrientedDetections)
    return (ConvertedOrientedDetections if is_oriented else ConvertedDetections)(detections, size, box_format)


def _to_xywh(box: Box, _: ImageSize) -> Box:
    x1, y1, x2, y2 = box
    return x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)


def _to_shares(box: Box, image: ImageSize) -> Box:
    x, y, right_or_width, bottom_or_height = box
    return (
        round(x / image.width, 6),
        round(y / image.height, 6),
        round(right_or_width / image.width, 6),
        round(bottom_or_height / image.height, 6),
    )


def _to_xywh_shares(box: Box, image: ImageSize) -> Box:
    return _to_shares(_to_xywh(box, image), image)


BOX_FORMATS: dict[str, Callable[[Box, ImageSize], Box]] = {
    "xywh": _to_xywh,  # COCO's: the top left corner, then the size
    "xyxyn": _to_shares,
    "xywhn": _to_xywh_shares,
}
