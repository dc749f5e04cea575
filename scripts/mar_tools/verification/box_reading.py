"""What is odd about the answers of a detector."""

import torch
from torch import Tensor

from mar_tools.verification.layouts import LEAST_SIDE, describe_fitting_layouts, is_relative, name_form, undo_reading
from mar_tools.verification.mirroring import Errors, find_better_form, find_errors
from mar_tools.verification.observations import Observation
from mar_tools.verification.seen_answers import SAME, Check, Found, Range, Seen, find_range
from vision_serving.graphs.outputs import OutputFormat
from vision_serving.options import DetectionOptions
from vision_serving.results.postprocessing import SCORE_SLACK

MOST_INVERTED = 0.05  # share of boxes
CLEAR_SCORE, SURE_SCORE = 0.25, 0.5
ENOUGH_MIRRORED = 6  # pictures in which it is sure of something
LEAST_ERROR = 0.03
ENOUGH_BOXES = 10  # fewer say nothing about the rest
BACKGROUNDS = {"background", "__background__", "bg", "no object", "n/a"}


def _all(seen: Seen, name: str) -> Tensor:
    return torch.cat([image[name] for image in seen.observations])


def _options(seen: Seen) -> DetectionOptions:
    options = seen.config.options_model.model_validate(seen.config.options)
    assert isinstance(options, DetectionOptions)
    return options


def _best_boxes(seen: Seen) -> Tensor:
    """Return the boxes, in model pixels, that count: those of clear scores, or else the best few of each picture."""
    clear = [image["raw_boxes"][image["raw_scores"] > CLEAR_SCORE] for image in seen.observations]
    if sum(map(len, clear)) < ENOUGH_BOXES:
        clear = [image["raw_boxes"][:ENOUGH_BOXES] for image in seen.observations]
    return torch.cat(clear)


def _not_finite_boxes(seen: Seen) -> Found:
    bad = sum(
        not (torch.isfinite(image["score_range"]).all() and torch.isfinite(image["raw_boxes"]).all())
        for image in seen.observations
    )
    if not bad:
        return None
    return f"it gives NaN or infinity for {bad} of {len(seen.observations)} pictures; look at the weights, mean and std"


def _score_range(seen: Seen) -> Range:
    ranges = _all(seen, "score_range")
    return float(ranges.min()), float(ranges.max())


def _odd_scores(seen: Seen) -> Found:
    low, high = _score_range(seen)
    if low >= -SCORE_SLACK and high <= 1 + SCORE_SLACK:
        return None
    scores = f"its scores go from {low:.4g} to {high:.4g}. Expected [0, 1]"
    if high > 1 and seen.output.format == "yolo" and seen.output.activation is None:
        return f"{scores}. Raw values of a head need `output: {{activation: sigmoid}}`; pixels, the other `layout`"
    return f"{scores}. Let the network end with its sigmoid or softmax, or say under `output` which one is missing"


def _twice_sigmoid(seen: Seen) -> Found:
    low, high = _score_range(seen)
    least, most = (0.25, 0.5345) if seen.output.objectness else (0.5, 0.7311)  # of sigmoids of values in [0, 1]
    if seen.output.format != "yolo" or seen.output.activation != "sigmoid" or low < least or high > most:
        return None
    return (
        f"its scores go from {low:.4g} to {high:.4g}, as a sigmoid of values in [0, 1] does: the network has its own. "
        "This would fit: `output:` without `activation`"
    )


def _inverted_boxes(seen: Seen) -> Found:
    boxes = _best_boxes(seen)
    inverted = float(((boxes[:, 2] < boxes[:, 0]) | (boxes[:, 3] < boxes[:, 1])).float().mean()) if len(boxes) else 0.0
    if inverted <= MOST_INVERTED:
        return None
    return (
        f"{inverted:.0%} of its best boxes end before they begin (x2 < x1 or y2 < y1). Expected x1, y1, x2, y2 in "
        f"model pixels. {_layouts(seen)}"
    )


def _small_boxes(seen: Seen) -> Found:
    boxes = _best_boxes(seen)
    small = float(((boxes[:, 2:] - boxes[:, :2]) < LEAST_SIDE).any(dim=1).float().mean()) if len(boxes) else 0.0
    if small <= 0.5:
        return None
    return f"{small:.0%} of its best boxes are less than {LEAST_SIDE:g} model pixels wide or high. {_layouts(seen)}"


def _not_mirrored(seen: Seen) -> Found:
    told = [image for image in seen.observations if "mirrored_boxes" in image and _is_sure(image)]
    if len(told) < ENOUGH_MIRRORED:
        return None
    each = [_mirror_errors(image, seen.output) for image in told]
    given, errors = name_form(seen.output), {form: torch.cat([image[form] for image in each]) for form in each[0]}
    better = find_better_form(errors, given, LEAST_ERROR) if given in errors else None
    if better is None:
        return None
    return (
        f"in mirrored pictures its boxes are {float(errors[given].mean()):.1%} of the picture away from the mirrored "
        f"places, and {float(errors[better].mean()):.1%} as {better}. This would fit, under `output`: "
        f"`box_format: {better}`"
    )


def _is_sure(image: Observation) -> bool:
    return bool(min(image["raw_scores"].max(), image["mirrored_scores"].max()) > CLEAR_SCORE)


def _mirror_errors(image: Observation, output: OutputFormat) -> Errors:
    """Return how far the boxes are off in each form, where they can be read in another one."""
    size_hw = (float(image["size_hw"][0]), float(image["size_hw"][1]))
    sides = []
    for name in ("raw", "mirrored"):
        boxes = undo_reading(image[f"{name}_boxes"], size_hw, output)
        if boxes is None:
            return {}
        sides.append((boxes[None], image[f"{name}_scores"][None]))
    return find_errors(sides[0], sides[1], (1.0, 1.0) if is_relative(output) else size_hw)


def _layouts(seen: Seen) -> str:
    """Say which layouts of the boxes would fit. Their sizes: the largest picture's."""
    size_hw = torch.stack([image["size_hw"] for image in seen.observations]).amax(dim=0)
    return describe_fitting_layouts(_best_boxes(seen), (float(size_hw[0]), float(size_hw[1])), seen.output)


def _max_detections(seen: Seen) -> Found:
    options = _options(seen)
    least = max(options.score_threshold, SURE_SCORE)
    counts = [int((image["scores"] > least).sum()) for image in seen.observations]
    expected = sum(len(image["labels"]) for image in seen.truth or ()) / len(counts)
    most = options.max_detections
    if min(counts) < most or most < ENOUGH_BOXES or len(counts) < 2 or expected >= most / 2:
        return None
    return (
        f"it finds `max_detections`, {most} boxes above {least:g}, in each of {len(counts)} pictures, whatever is in "
        "them. Expected as many as there are objects; look at `activation`, `objectness` and `layout` under `output`"
    )


def _same_boxes(seen: Seen) -> Found:
    first = seen.observations[0]
    if not seen.differing or not len(first["scores"]):
        return None
    for image in seen.observations[1:]:
        if len(image["scores"]) != len(first["scores"]):
            return None
        same = [(image[name] - first[name]).abs().max() <= SAME for name in ("boxes", "scores", "class_ids")]
        if not all(same):
            return None
    return (
        f"its answer to {len(seen.observations)} different pictures is the same. Expected boxes that follow the "
        "picture; look at mean, std, `output: index` and the weights"
    )


def _equal_box_scores(seen: Seen) -> Found:
    scores = _all(seen, "raw_scores")
    if len(scores) < ENOUGH_BOXES or scores.max() != scores.min():
        return None
    return f"the best {len(scores)} boxes all have the score {float(scores[0]):.4g}; look at `output` and the weights"


def _box_classes(seen: Seen) -> list[int]:
    threshold = _options(seen).score_threshold
    return [
        int(class_id) for image in seen.observations for class_id in image["class_ids"][image["scores"] > threshold]
    ]


def _one_box_class(seen: Seen) -> Found:
    classes = _box_classes(seen)
    if len(classes) < ENOUGH_BOXES or len(set(classes)) > 1:
        return None
    label = seen.labels[classes[0]]
    if label.lower() not in BACKGROUNDS and (seen.true_classes < 2 or len(seen.labels) < 2):
        return None
    return (
        f"all its {len(classes)} boxes are {label!r}. Expected several of {len(seen.labels)} classes; look at "
        "`objectness`, `layout` and the order of the labels"
    )


def _warn_one_box_class(seen: Seen) -> Found:
    classes = _box_classes(seen)
    own = [label for label in seen.labels if label.lower() not in BACKGROUNDS]
    if len(classes) < ENOUGH_BOXES or len(set(classes)) > 1 or len(own) < 2:
        return None
    return f"all {len(classes)} boxes of the reference are {seen.labels[classes[0]]!r}, of {len(own)} classes"


def _warn_no_box(seen: Seen) -> Found:
    if _box_classes(seen):
        return None
    return (
        f"the reference finds no box above its score_threshold of {_options(seen).score_threshold:g} in "
        f"{len(seen.observations)} pictures; pictures that it should know belong under `verification: images`"
    )


def box_ranges(seen: Seen) -> dict[str, Range]:
    sizes = torch.stack([image["size_hw"] for image in seen.observations])
    boxes = dict(zip(("x1", "y1", "x2", "y2"), map(find_range, _all(seen, "raw_boxes").unbind(dim=1)), strict=True))
    return {
        **boxes,
        "scores": find_range(_all(seen, "score_range")),
        "model height": find_range(sizes[:, 0]),
        "model width": find_range(sizes[:, 1]),
    }


# As CLASS_CHECKS of class_reading.py.
BOX_CHECKS: dict[str, tuple[Check, bool]] = {
    "not_finite": (_not_finite_boxes, True),
    "scores": (_odd_scores, True),
    "sigmoid_twice": (_twice_sigmoid, False),
    "inverted_boxes": (_inverted_boxes, False),
    "small_boxes": (_small_boxes, False),
    "not_mirrored": (_not_mirrored, False),
    "equal_scores": (_equal_box_scores, False),
    "same_answer": (_same_boxes, False),
    "max_detections": (_max_detections, False),
    "one_class": (_one_box_class, False),
}
BOX_WARNINGS: tuple[Check, ...] = (_warn_no_box, _warn_one_box_class)
