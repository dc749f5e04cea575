"""What a network gave, in words, and the `output:` that would fit it."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vision_serving.options import Task

MOST_NAMED = 8
DECODE_HINT = "decode: FILE.py, with `decode(outputs, size_hw)` in it"


def name_values(outputs: Any) -> dict[Any, Any]:
    """Return a network's values by name, or by place where they have none."""
    if isinstance(outputs, Mapping):
        return dict(outputs)
    return dict(enumerate(outputs)) if isinstance(outputs, (tuple, list)) else {0: outputs}


def describe_fits(values: Mapping[Any, Any], task: Task) -> str:
    """Return what a network gave, and which layouts fit it. values: tensors or shapes, by name or place."""
    shapes = {key: _find_shape(value) for key, value in values.items()}
    told = ", ".join(f"{key}: {_tell(shape)}" for key, shape in list(shapes.items())[:MOST_NAMED])
    more = f" and {len(shapes) - MOST_NAMED} more" if len(shapes) > MOST_NAMED else ""
    fits = find_layouts([shape or () for shape in shapes.values()], task)
    return f"{{{told}}}{more}; what fits: output: {' or '.join(fits)}"


def _find_shape(value: Any) -> tuple[Any, ...] | None:
    if isinstance(value, Tensor):
        return tuple(value.shape)
    return tuple(value) if isinstance(value, (tuple, list)) and not any(isinstance(v, Tensor) for v in value) else None


def _tell(shape: tuple[Any, ...] | None) -> str:
    return "no tensor" if shape is None else "(" + ", ".join("?" if size is None else str(size) for size in shape) + ")"


def find_layouts(shapes: list[tuple[Any, ...]], task: Task) -> list[str]:
    """Return what an `output:` may say of values of these shapes, the likeliest first; the hook for all else."""
    if task == "classification":
        places = [place for place, shape in enumerate(shapes) if len(shape) == 2]
        return [f"{{format: logits, index: {place}}}" for place in places] or ["(none: a classifier gives (N, C))"]
    found = [
        f"{{{', '.join([text, *_name_place(place, shapes)])}}}"
        for place, shape in enumerate(shapes)
        if len(shape) == 3
        for text in _of_rows(shape, any(len(other) == 4 for other in shapes))
    ]
    dims = sorted(len(shape) for shape in shapes if shape)
    has_boxes = any(len(shape) == 3 and shape[-1] in (4, None) for shape in shapes)
    if dims == [3, 3] and has_boxes:
        found = ["{format: boxes_scores}", "{format: detr, activation: sigmoid or softmax}"]
    if dims == [2, 2, 3] and has_boxes:
        found = ["{format: boxes_scores_labels}"]
    return [*found, f"{{{DECODE_HINT}}}"]


def _name_place(place: int, shapes: list[tuple[Any, ...]]) -> list[str]:
    return [f"index: {place}"] if len(shapes) > 1 and not any(len(shape) == 4 for shape in shapes) else []


def _of_rows(shape: tuple[Any, ...], has_prototypes: bool) -> list[str]:
    """Return layouts of one tensor of three dimensions. There are more boxes than numbers a box."""
    _, first, last = shape
    masks = ", masks: true" if has_prototypes else ""
    if last in (6, 7) and (first is None or first > last) and not has_prototypes:
        return ["format: end_to_end" + (", box_format: xywhr" if last == 7 else "")]
    if first is not None and last is not None and first < last:
        return [f"format: yolo, layout: columns, objectness: false{masks}"]
    if has_prototypes:
        return [f"format: end_to_end{masks}"]
    return ["format: yolo, layout: rows, objectness: true", "format: yolo, layout: rows, objectness: false"]
