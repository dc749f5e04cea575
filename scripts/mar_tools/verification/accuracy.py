"""How good a handler's answers are where the truth is known: accuracy, mean average precision, or COCO's mAP."""

import contextlib
import io
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mar_tools.verification.labelled import Truth
from mar_tools.verification.observations import Observation
from vision_serving.errors import ConfigError, how_to_install
from vision_serving.options import Task
from vision_serving.results.postprocessing import score_classes

# A measure that tells how good a model is -> its floor, without `min_`; each that was measured is held to its own. The
# first one of them tells most: a table shows it, and a drop is a drop of it.
PRIMARY = {"top1": "accuracy", "map": "map", "nearest1": "accuracy"}


def measure_accuracy(task: Task, observations: Sequence[Observation], truth: Sequence[Truth]) -> dict[str, float]:
    """Measure, in [0, 1], `top1` and `top5`, or for detection `map` over IoU 0.5 to 0.95 and `map_50` at 0.5.

    Of independent scores `map`: the mean over the classes of the average precision, see `average_precision`.
    For embeddings `nearest1`: how often the nearest of the other images, by its angle, is of the same class.
    """
    measure = {"classification": measure_top_k, "detection": measure_map, "embedding": measure_nearest}[task]
    if "thresholds" in observations[0]:
        measure = measure_labels
    return {name: round(value, 6) for name, value in measure(observations, truth).items()}


def find_primary(accuracy: Mapping[str, float]) -> str:
    """Return the name of the measure that tells most."""
    return next(name for name in PRIMARY if name in accuracy)


def accuracy_drop(reference: Mapping[str, float], candidate: Mapping[str, float]) -> float:
    """Return by how much the candidate is worse, as a share; negative where it is better."""
    name = find_primary(reference)
    return round(reference[name] - candidate[name], 6)


def measure_top_k(observations: Sequence[Observation], truth: Sequence[Truth]) -> dict[str, float]:
    """Count an image as right whose best class is any of the true ones, which share a label."""
    logits = torch.stack([image["logits"] for image in observations])
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices
    hits = torch.stack([torch.isin(own, known["class_ids"]) for own, known in zip(best, truth, strict=True)])
    return {"top1": float(hits[:, 0].float().mean()), "top5": float(hits.any(dim=1).float().mean())}


def measure_nearest(observations: Sequence[Observation], truth: Sequence[Truth]) -> dict[str, float]:
    vectors = functional.normalize(torch.stack([image["embedding"] for image in observations]), dim=1)
    class_ids = torch.cat([image["class_ids"] for image in truth])  # folders: one of each
    nearest = (vectors @ vectors.T).fill_diagonal_(-2).argmax(dim=1)
    return {"nearest1": float((class_ids[nearest] == class_ids).float().mean())}


def find_hits(observations: Sequence[Observation], truth: Sequence[Truth]) -> list[bool]:
    """Return for each image of a classifier whether its best class is a true one."""
    return [
        int(image["logits"].argmax()) in known["class_ids"].tolist()
        for image, known in zip(observations, truth, strict=True)
    ]


def measure_labels(observations: Sequence[Observation], truth: Sequence[Truth]) -> dict[str, float]:
    """Take the mean over the classes that some image shows."""
    scores = score_classes(torch.stack([image["logits"] for image in observations]), "sigmoid")
    present = mark_classes(truth, scores.shape[1])
    shown = present.any(dim=0).nonzero().flatten().tolist()
    return {"map": sum(average_precision(scores[:, each], present[:, each]) for each in shown) / len(shown)}


def mark_classes(truth: Sequence[Truth], count: int) -> Tensor:
    """Return (N, C): whether an image shows a class."""
    present = torch.zeros(len(truth), count, dtype=torch.bool)
    for row, image in zip(present, truth, strict=True):
        row[image["class_ids"]] = True
    return present


def average_precision(scores: Tensor, present: Tensor) -> float:
    """Return the area below the steps of precision over recall, without interpolation. scores, present: (N,)."""
    precision, recall = precision_and_recall(scores, present)
    return float((recall.diff(prepend=recall.new_zeros(1)) * precision).sum())


def precision_and_recall(scores: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """Return both at each threshold, the highest first; equal scores have one. present: true somewhere."""
    scores, order = scores.sort(descending=True)
    ends = torch.cat((scores.diff() != 0, torch.ones(1, dtype=torch.bool)))
    hits = present[order].cumsum(0)[ends].double()
    found = torch.arange(1, len(scores) + 1)[ends]
    return hits / found, hits / hits[-1]


def measure_map(observations: Sequence[Observation], truth: Sequence[Truth]) -> dict[str, float]:
    """Measure boxes of any score, at most `max_detections` and COCO's 100 a picture."""
    evaluation = evaluate_boxes(observations, truth)
    return {"map": float(evaluation.stats[0]), "map_50": float(evaluation.stats[1])}


def evaluate_boxes(observations: Sequence[Observation], truth: Sequence[Truth]) -> Any:
    """Return COCO's evaluation, summarised. Of an observation it reads `source_boxes`, `class_ids` and `scores`."""
    coco, coco_eval = import_pycocotools()
    known = [_coco_boxes(index, image["boxes"], image["labels"], image["iscrowd"]) for index, image in enumerate(truth)]
    found = [
        _coco_boxes(index, image["source_boxes"], image["class_ids"], scores=image["scores"])
        for index, image in enumerate(observations)
    ]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress and a table
        evaluation = coco_eval(_index_boxes(coco(), known), _index_boxes(coco(), found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def _coco_boxes(
    image_id: int, boxes_xyxy: Tensor, class_ids: Tensor, crowds: Tensor | None = None, *, scores: Tensor | None = None
) -> list[dict[str, Any]]:
    """Return one image's boxes, each as COCO's annotations have it, without an id."""
    crowds = torch.zeros_like(class_ids) if crowds is None else crowds
    scores = torch.ones(len(class_ids)) if scores is None else scores
    values = (boxes_xyxy.tolist(), class_ids.tolist(), crowds.tolist(), scores.tolist())
    return [
        {
            "image_id": image_id,
            "category_id": class_id,
            "bbox": [left, top, right - left, bottom - top],
            "area": (right - left) * (bottom - top),
            "iscrowd": crowd,
            "score": score,
        }
        for (left, top, right, bottom), class_id, crowd, score in zip(*values, strict=True)
    ]


def _index_boxes(index: Any, images: Sequence[Sequence[dict[str, Any]]]) -> Any:
    """Fill an empty COCO index."""
    boxes = [{"id": number, **box} for number, box in enumerate(itertools.chain(*images), start=1)]
    index.dataset = {
        "images": [{"id": image_id} for image_id in range(len(images))],
        "annotations": boxes,
        "categories": [{"id": class_id} for class_id in sorted({box["category_id"] for box in boxes})],
    }
    index.createIndex()
    return index


def import_pycocotools() -> tuple[Any, Any]:
    """Return the classes COCO and COCOeval. Raises ConfigError where the package is not installed."""
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ModuleNotFoundError as error:
        raise ConfigError(f"`annotations` needs {how_to_install(error)}") from error
    return COCO, COCOeval
