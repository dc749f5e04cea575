"""A recipe from the metadata that Ultralytics' exporter writes into ONNX and TorchScript files: task, names, imgsz."""

import ast
import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mar_tools.drafting.conventions import find_hints
from mar_tools.drafting.drafts import PADDING, UNSCALED, Draft, Hints, Noted, choose_labels, name_of, read_names
from vision_serving.errors import ConfigError
from vision_serving.options import Task

YOLO = {"format": "yolo", "layout": "columns", "objectness": False}
CHOSEN = {"format": "end_to_end"}
TASKS: dict[str, tuple[Task, dict[str, Any]]] = {
    "detect": ("detection", YOLO),
    "segment": ("detection", {**YOLO, "masks": True}),
    "obb": ("detection", {**YOLO, "box_format": "xywhr"}),
    "classify": ("classification", {"format": "probabilities"}),
}
END_TO_END: dict[str, dict[str, Any]] = {
    "detect": CHOSEN,
    "segment": {**CHOSEN, "masks": True},
    "obb": {**CHOSEN, "box_format": "xywhr"},
}
CHOSEN_ROW = 6  # box, score, class: of exporters that do not say `end2end`
RT_DETR, RT_DETR_ROWS = "rtdetr", {**YOLO, "layout": "rows", "normalized": True}
SIDE = 640
PLAIN = {"antialias": False, **UNSCALED}  # OpenCV resizes so, with which detectors are trained
WITH_NMS = {"score_threshold": 0.25, "iou_threshold": 0.7}
WITHOUT_NMS = {"score_threshold": 0.25, "nms": "none"}


def is_of_ultralytics(metadata: Mapping[str, Any]) -> bool:
    return {"task", "names", "imgsz"} <= metadata.keys()


def draft_ultralytics(
    path: Path, hints: Hints, metadata: Mapping[str, str], last: int | None, size_hw: tuple[int | None, int | None]
) -> Draft:
    """Return the recipe of an ONNX file. last: how many numbers a row of its first output has. size_hw: of its input.

    Raises ConfigError for a task that is not served.
    """
    where = "from the metadata that Ultralytics' exporter wrote"
    if metadata["task"] not in TASKS:
        raise ConfigError(f"{path}: its metadata say task {metadata['task']!r}; expected one of {sorted(TASKS)}")
    task, _ = TASKS[metadata["task"]]
    size = _read_size(metadata, size_hw)
    name = name_of(path, hints)
    names = read_names(metadata["names"])
    labels = choose_labels(name, hints, names, None, where)
    output = _read_output(metadata, last, len(names or ()))
    recipe: dict[str, Any] = {"name": name, "task": Noted(task, where)}
    recipe["model"] = {"source": "onnx", "file": path, "output": output}
    recipe["labels"] = labels.value
    if task == "detection":
        mode = "exact" if output == RT_DETR_ROWS else "letterbox"
        recipe["preprocessing"] = {"resize": {"mode": mode, "size": Noted(size, where)}, **PLAIN}
        is_final = output == RT_DETR_ROWS or output["format"] == CHOSEN["format"]
        recipe["options"] = Noted(WITHOUT_NMS if is_final else WITH_NMS, "as Ultralytics predicts")
        padding = (PADDING,) if mode == "letterbox" else ()
        return Draft(recipe, labels.files, (*labels.notes, *padding), find_hints(task, recipe["preprocessing"]))
    edge = {"mode": "shortest_edge", "size": Noted(size[0], where)}
    recipe["preprocessing"] = {"resize": edge, "crop": size, **UNSCALED}
    return Draft(recipe, labels.files, labels.notes)


def _read_output(metadata: Mapping[str, str], last: int | None, classes: int) -> dict[str, Any]:
    """Tell heads that choose their boxes, and RT-DETR's, whose boxes are parts of the image, from YOLO's columns."""
    task = metadata["task"]
    is_rt_detr = RT_DETR in metadata.get("description", "").lower().replace("-", "")
    has_rows = last == 4 + classes
    if task == "detect" and ((is_rt_detr and (has_rows or last is None)) or (has_rows and last != CHOSEN_ROW)):
        return RT_DETR_ROWS
    says_so = metadata.get("end2end") == "True"
    is_chosen = says_so or (task == "detect" and last == CHOSEN_ROW)
    return END_TO_END[task] if is_chosen and task in END_TO_END else TASKS[task][1]


def _read_size(metadata: Mapping[str, str], size_hw: tuple[int | None, int | None]) -> list[int]:
    with contextlib.suppress(ValueError, SyntaxError, TypeError):
        size = [int(side) for side in ast.literal_eval(metadata["imgsz"])]
        if len(size) == 2 and all(side > 0 for side in size):
            return size
    return [side or SIDE for side in size_hw]
