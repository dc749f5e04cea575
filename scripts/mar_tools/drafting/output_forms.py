"""How a network's answers are to be read: by their names, shapes and values on photographs.

Each rule looks for one form. The first that finds it tells the task, `output:` of the recipe, and why.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from mar_tools.drafting import rearrangements
from mar_tools.drafting.box_forms import check_boxes, find_boxes, read_boxes
from mar_tools.drafting.distribution_heads import FILE, find_distribution_head
from mar_tools.drafting.drafts import Noted, assume
from mar_tools.drafting.row_forms import (
    BOX,
    LONGEST_ROW,
    STRIDES,
    are_angles,
    find_objectness,
    find_order,
    find_prototypes,
    split_masks,
    take_part,
)
from mar_tools.drafting.score_forms import (
    FEATURES,
    INDEPENDENT,
    ONE_VALUE,
    SCORES,
    are_scores,
    find_dense_scores,
    has_background_logits,
    is_called,
    read_box_scores,
    read_class_scores,
    read_first_class,
    sum_to_one,
)
from vision_serving.errors import ConfigError
from vision_serving.geometry import SizeHW
from vision_serving.graphs.outputs import ROW
from vision_serving.options import Task

Outputs = Mapping[str, Tensor]
OF_ANGLE = {"box_format": assume("xywhr", "the last number of a row goes below 0 and stays within pi, as angles do")}
TENSORFLOW = "detection_boxes"  # of its detectors: y before x, classes from 1


@dataclass(frozen=True)
class Reading:
    """output: of the recipe's model, empty for the task's own. classes: where the answer tells their number.

    family: whose conventions the pixels follow, where the form tells it. files: that `output` needs, by name. notes:
    what could not be known.
    """

    task: Task
    output: Mapping[str, Any] = field(default_factory=dict)
    classes: int | None = None
    family: str = ""
    files: Mapping[str, bytes] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


Rule = Callable[[Outputs, SizeHW], Reading | None]


def read_outputs(outputs: Outputs, size_hw: SizeHW, count: int) -> Reading:
    """Raises ConfigError for answers of no known form, with the shapes and ranges that were seen.

    outputs: by name, of `count` photographs of one size.
    """
    if all(values.shape == (count,) for values in outputs.values()):
        raise ConfigError(
            f"it gives one number an image, {describe_outputs(outputs)}: the number of a class, without scores. Export "
            "the network without its last step, the argmax"
        )
    batched = {name: values.dim() > 1 and len(values) == count for name, values in outputs.items()}
    if not any(batched.values()):
        raise ConfigError(
            f"its answers to {count} photographs have no place for each of them: {describe_outputs(outputs)}. Expected "
            f"({count}, ...). A network that chooses its boxes gives as many as it finds: export it without (its own "
            "exporter says how: `nms=False`, or no `--end2end`), as the server chooses them"
        )
    told = {name: values if batched[name] else torch.zeros(()) for name, values in outputs.items()}  # keeps its place
    for rule in RULES:
        reading = rule(told, size_hw)
        if reading is not None:
            return reading
    if all(values.flatten(1).shape[1] == max(values.shape[1:]) for name, values in outputs.items() if batched[name]):
        raise ConfigError(
            f"its answer has dimensions of 1 too many: {describe_outputs(outputs)}. Expected (N, C); let the network "
            "end with `.flatten(1)`"
        )
    raise ConfigError(
        f"the answers have no form that is known here: {describe_outputs(outputs)}; write a Python file that reads "
        "them (docs/use/own_models.md, a package with its own decode)"
    )


def read_as_vector(reading: Reading) -> Reading:
    """Return the reading of a classifier's answer as features, for a user who knows that it is."""
    index = {"index": reading.output["index"]} if "index" in reading.output else {}
    return Reading("embedding", {"format": "vector", **index}, notes=reading.notes)


def describe_outputs(outputs: Outputs) -> str:
    return ", ".join(
        f"{name} {tuple(values.shape)}"
        + (f" from {float(values.min()):.3g} to {float(values.max()):.3g}" if values.numel() else "")
        for name, values in outputs.items()
    )


def _classes(outputs: Outputs, _: SizeHW) -> Reading | None:
    """Look for (N, C), alone or before others."""
    flat = {place: name for place, name in enumerate(outputs) if outputs[name].dim() == 2}
    if not flat or any(values.dim() == 3 for values in outputs.values()):
        return None
    place, notes = _choose_classes(outputs, flat)
    values = outputs[flat[place]]
    classes = values.shape[1]
    if bool((values == values[0]).all()) and len(values) > 1:
        raise ConfigError(
            f"its answers to {len(values)} photographs are all the same: {describe_outputs(outputs)}; give pictures "
            "that it knows, with `--images FOLDER`"
        )
    if classes == 1 and not are_scores(values):
        raise ConfigError(
            "the answer is one value an image, (N, 1), which names no class. Where its sigmoid is the score of one, "
            "write a recipe with `output: {activation: sigmoid}`; else give the network two outputs"
        )
    if len(flat) == 1 and _is_vector(flat[place], values):
        return read_as_vector(Reading("classification", {} if len(outputs) == 1 else {"index": place}))
    taken = f"{flat[place]!r} of {sorted(outputs)}"
    picked: dict[str, Any] = {} if len(outputs) == 1 else {"index": assume(place, taken)}
    if sum_to_one(values):
        shape = Noted("probabilities", f"{classes} values that sum to 1 on photographs")
        return Reading("classification", {"format": shape, **picked}, classes, notes=notes)
    if are_scores(values):
        notes = (*notes, ONE_VALUE) if classes == 1 else notes
        several = {"format": "probabilities", "activation": assume("sigmoid", "scores in [0, 1] that do not sum to 1")}
        return Reading("classification", {**several, **picked}, classes, notes=notes)
    if bool(values.max() < 0) and not sum_to_one(values.exp()):
        notes = (*notes, INDEPENDENT)
    return Reading("classification", picked, classes, notes=notes)


def _choose_classes(outputs: Outputs, flat: Mapping[int, str]) -> tuple[int, tuple[str, ...]]:
    """Return the place of the classes among several (N, C), by sums of 1, else by their names, and what is unsure."""
    summing = [place for place, name in flat.items() if sum_to_one(outputs[name])]
    named = [place for place, name in flat.items() if is_called(name, SCORES) and not is_called(name, FEATURES)]
    others = [place for place, name in flat.items() if not is_called(name, FEATURES)]
    place = (summing or named or others or list(flat))[0]
    if len(flat) == 1 or len(summing or named) == 1:
        return place, ()
    shapes = ", ".join(f"index {place}: {name} {tuple(outputs[name].shape)}" for place, name in flat.items())
    note = f"which of its answers are the classes ({shapes}); {flat[place]!r} was taken. `output: {{index: N}}` chooses"
    return place, (note,)


def _is_vector(name: str, values: Tensor) -> bool:
    """Return whether it is a vector of features: by its name, or its length of 1."""
    has_length_1 = bool(((values.norm(dim=1) - 1).abs() < 1e-3).all()) and bool(values.min() < 0)
    return is_called(name, FEATURES) or has_length_1


def _detr(outputs: Outputs, size_hw: SizeHW) -> Reading | None:
    """Look for `logits`, or `pred_logits`, and `pred_boxes`; with softmax, most boxes are of the last: no object."""
    name = next((name for name in ("logits", "pred_logits") if name in outputs), None)
    if name is None or "pred_boxes" not in outputs:
        return None
    logits = outputs[name]
    softmax = has_background_logits(logits) == "last"
    activation = assume(
        "softmax" if softmax else "sigmoid",
        f"the last class is{'' if softmax else ' not'} 'no object': {'' if softmax else 'not '}the best of most boxes",
    )
    names = _names({"logits": name, "pred_boxes": "pred_boxes"})
    return Reading("detection", {"format": "detr", **names, "activation": activation}, logits.shape[-1] - softmax)


def _boxes_and_scores(outputs: Outputs, size_hw: SizeHW) -> Reading | None:
    """Look for (N, Q, 4) and (N, Q, C), or (N, Q) and labels (N, Q)."""
    boxes_name = find_boxes(outputs, size_hw)
    if boxes_name is None:
        return None
    boxes = outputs[boxes_name]
    others = {name: v for name, v in outputs.items() if name != boxes_name and v.shape[:2] == boxes.shape[:2]}
    by_name = {"box_format": Noted("yxyx", f"{boxes_name!r} of TensorFlow")} if boxes_name == TENSORFLOW else {}
    flat = {name: values for name, values in others.items() if values.dim() == 2}
    if len(flat) == 2:
        labels_name = max(flat, key=lambda name: float((flat[name] == flat[name].round()).float().mean()))
        scores_name = next(name for name in flat if name != labels_name)
        names = _names({"boxes": boxes_name, "scores": scores_name, "labels": labels_name})
        scores = read_box_scores(flat[scores_name])
        first, notes = read_first_class(flat[labels_name], flat[scores_name].sigmoid() if scores else flat[scores_name])
        if by_name:
            first, notes = {"background": Noted("first", "TensorFlow counts classes from 1")}, ()
        form = {"format": "boxes_scores_labels", **names, **read_boxes(boxes, size_hw, "xyxy"), **by_name}
        return Reading("detection", {**form, **scores, **first}, notes=notes)
    scores_name = find_dense_scores({name: values for name, values in others.items() if values.dim() == 3})
    scores, classes = read_class_scores(outputs[scores_name])
    names = _names({"boxes": boxes_name, "scores": scores_name})
    form = {"format": "boxes_scores", **names, **read_boxes(boxes, size_hw, "xyxy"), **by_name, **scores}
    check_boxes(boxes, form, size_hw, "xyxy")
    return Reading("detection", form, classes)


def _names(names: dict[str, str]) -> dict[str, Any]:
    return {} if all(name == own for name, own in names.items()) else {"names": names}


def _rows(outputs: Outputs, size_hw: SizeHW) -> Reading | None:
    """Look for (N, Q, 6) or (N, Q, 7): box, score, class in any order, of a head that has chosen its boxes."""
    prototypes = find_prototypes(outputs)
    for place, (name, values) in enumerate(outputs.items()):
        for layout in ("rows", "columns") if values.dim() == 3 else ():
            rows = values.transpose(1, 2) if layout == "columns" else values
            masks, rows = split_masks(outputs, name, rows, prototypes if rows.shape[2] > LONGEST_ROW else None)
            order = find_order(rows, size_hw)
            if order is None:
                continue
            boxes, class_ids, scores = (take_part(rows, order, part) for part in ("box", "class", "score"))
            output: dict[str, Any] = {"format": "end_to_end", **masks}
            if layout == "columns":
                output["layout"] = Noted(layout, f"{tuple(values.shape)}")
            first, notes = read_first_class(class_ids, scores)
            index = {} if len(outputs) == 1 or masks else {"index": place}
            told = boxes[scores > 0] if bool((scores > 0).any()) else boxes  # others fill up
            if order == (*ROW, "skip") and are_angles(rows[..., -1]):
                return Reading("detection", {**output, **OF_ANGLE, **first, **index}, None, "YOLO", notes=notes)
            if order != ROW:
                output["order"] = assume(list(order), "scores are in [0, 1], classes whole numbers")
            form = {**output, **read_boxes(told, size_hw, "xyxy"), **first, **index}
            return Reading("detection", form, None, "YOLO", notes=notes)
    return None


def _yolo(outputs: Outputs, size_hw: SizeHW) -> Reading | None:
    """Look for one tensor of three dimensions: rows or columns of box, objectness perhaps, and classes."""
    dense = [(place, name) for place, (name, values) in enumerate(outputs.items()) if values.dim() == 3]
    if not dense:
        return None
    place, name = max(dense, key=lambda found: outputs[found[1]].numel())
    values = outputs[name]
    columns = values.shape[1] < values.shape[2]
    rows = values.transpose(1, 2) if columns else values
    masks, rows = split_masks(outputs, name, rows, find_prototypes(outputs))
    has_angle = not masks and rows.shape[2] > BOX + 1 and are_scores(rows[..., BOX:-1]) and are_angles(rows[..., -1])
    rows = rows[..., :-1] if has_angle else rows
    if rows.shape[2] <= BOX:
        return None
    objectness, family, why = find_objectness(rows, columns, size_hw)
    output: dict[str, Any] = {
        "format": "yolo",
        "layout": Noted("columns" if columns else "rows", f"(N, {values.shape[1]}, {values.shape[2]})"),
        "objectness": assume(objectness, why),
        **masks,
    }
    if family == "YOLOX" and bool(rows[..., 2:4].min() < 0):
        output["strides"] = assume(list(STRIDES), "sizes below 0 are logarithms, and boxes offsets in cells")
    else:
        output |= OF_ANGLE if has_angle else read_boxes(rows[..., :BOX], size_hw, "cxcywh")
        check_boxes(rows[..., :BOX], {**output, "box_format": "cxcywh"} if has_angle else output, size_hw, "cxcywh")
    output |= read_box_scores(rows[..., BOX:])
    if len(outputs) > 1 and not masks:
        output["index"] = Noted(place, f"the largest of {len(outputs)} outputs")
    return Reading("detection", output, rows.shape[2] - BOX - objectness, family)


def _distributions(outputs: Outputs, size_hw: SizeHW) -> Reading | None:
    """Look for pairs of (N, cells, C) and (N, cells, 4 x B), one for each grid."""
    head = find_distribution_head(outputs, size_hw)
    if head is None:
        return None
    why = f"{len(head.grids)} grids of scores and of {head.bins} distances a side, as PicoDet has them"
    return Reading("detection", {"decode": Noted(FILE, why)}, head.classes, "GFL", {FILE: head.write_decode()})


def _rearranged(outputs: Outputs, size_hw: SizeHW) -> Reading | None:
    """Look for boxes and scores in other dimensions, which a file with `decode` rearranges."""
    source = rearrangements.find_rearrangement(outputs)
    if source is None:
        return None
    reading = _boxes_and_scores(rearrangements.run_decode(source, outputs), size_hw)
    if reading is None:
        return None
    kept = {key: value for key, value in reading.output.items() if key not in ("format", "names")}
    why = f"it rearranges {', '.join(f'{name} {tuple(values.shape)}' for name, values in outputs.items())}"
    files = {rearrangements.FILE: source}
    return replace(reading, output={"decode": Noted(rearrangements.FILE, why), **kept}, files=files)


RULES: tuple[Rule, ...] = (_detr, _distributions, _rearranged, _boxes_and_scores, _classes, _rows, _yolo)
