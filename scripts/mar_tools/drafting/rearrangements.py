"""Answers that are boxes, scores and classes in other dimensions: a file with `decode` puts them as `output:` has them.

What the file gives is read as any other boxes and scores are, so it is also run here.
"""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from vision_serving.graphs.python_files import load_attribute

FILE = "decode_boxes.py"
SOURCE = '''"""Written by new_recipe.py, yours to change: {what}."""


def decode(outputs, size_hw):
    return {{
{parts}
    }}
'''
IMAGE_ROW = 7  # of Caffe's DetectionOutput: image, class, score, box

Outputs = Mapping[str, Tensor]
Parts = dict[str, str]  # of what `decode` gives: an expression in Python


def find_rearrangement(outputs: Outputs) -> bytes | None:
    """Return a Python file with `decode(outputs, size_hw)`; None where the outputs need none."""
    for what, find_parts in REARRANGEMENTS.items():
        parts = find_parts(outputs)
        if parts is not None:
            lines = "\n".join(f'        "{name}": {expression},' for name, expression in parts.items())
            return SOURCE.format(what=what, parts=lines).encode()
    return None


def run_decode(source: bytes, outputs: Outputs) -> dict[str, Tensor]:
    """Return what the file makes of outputs, as values of the formats `boxes_scores` and `boxes_scores_labels`."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / FILE).write_bytes(source)
        given = next(iter(outputs.values())) if len(outputs) == 1 else outputs
        found = load_attribute(Path(folder), FILE, "decode")(given, None)
    return {"labels" if name == "class_ids" else name: values for name, values in found.items()}


def _split_scored_boxes(outputs: Outputs) -> Parts | None:
    """Find (N, Q, 5) and labels (N, Q)."""
    scored = [name for name, values in outputs.items() if values.dim() == 3 and values.shape[2] == 5]
    labels = [name for name, values in outputs.items() if scored and values.shape == outputs[scored[0]].shape[:2]]
    if len(scored) != 1 or len(labels) != 1:
        return None
    rows = f"outputs[{scored[0]!r}]"
    return {"boxes": f"{rows}[..., :4]", "scores": f"{rows}[..., 4]", "class_ids": f"outputs[{labels[0]!r}]"}


def _turn_scores(outputs: Outputs) -> Parts | None:
    """Find (N, Q, 4) and (N, C, Q)."""
    boxes = [name for name, values in outputs.items() if values.dim() == 3 and values.shape[2] == 4]
    if len(boxes) != 1:
        return None
    count = outputs[boxes[0]].shape[1]
    scores = [name for name, values in outputs.items() if values.dim() == 3 and values.shape[2] == count != 4]
    if len(scores) != 1 or outputs[scores[0]].shape[1] == count:
        return None
    return {"boxes": f"outputs[{boxes[0]!r}]", "scores": f"outputs[{scores[0]!r}].transpose(1, 2)"}


def _drop_single_dimension(outputs: Outputs) -> Parts | None:
    """Find (N, Q, 1, 4) and (N, Q, C)."""
    boxes = [name for name, values in outputs.items() if values.dim() == 4 and values.shape[2:] == (1, 4)]
    scores = [
        name for name, v in outputs.items() if v.dim() == 3 and boxes and v.shape[1] == outputs[boxes[0]].shape[1]
    ]
    if len(boxes) != 1 or len(scores) != 1:
        return None
    return {"boxes": f"outputs[{boxes[0]!r}][:, :, 0]", "scores": f"outputs[{scores[0]!r}]"}


def _split_image_rows(outputs: Outputs) -> Parts | None:
    """Find (N, 1, Q, 7): the number of the image, class, score, box."""
    (values, *others) = outputs.values()
    if others or values.dim() != 4 or values.shape[1] != 1 or values.shape[3] != IMAGE_ROW:
        return None
    return {"boxes": "outputs[:, 0, :, 3:]", "scores": "outputs[:, 0, :, 2]", "class_ids": "outputs[:, 0, :, 1]"}


REARRANGEMENTS: dict[str, Callable[[Outputs], Parts | None]] = {
    "rows of box and score, and classes, as MMDetection's exporter gives them": _split_scored_boxes,
    "boxes (N, Q, 4) and scores (N, C, Q), as PaddleDetection's exporter gives them": _turn_scores,
    "boxes (N, Q, 1, 4) and scores (N, Q, C), as exporters of YOLOv4 give them": _drop_single_dimension,
    "rows of image, class, score and box, as DetectionOutput of Caffe gives them": _split_image_rows,
}
