"""How good a handler's answers are where the truth is known: top-1 and top-5 accuracy, or COCO's mAP."""

import contextlib
import io
import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mar_tools.verification.labelled import Truth
from mar_tools.verification.observations import Observation
from vision_serving.errors import ConfigError, how_to_install
from vision_serving.options import Task

PRIMARY: dict[Task, str] = {"classification": "top1", "detection": "map", "embedding": "nearest1"}
FLOORED: dict[Task, str] = {"classification": "accuracy", "detection": "map", "embedding": "accuracy"}  # by its floor


def measure_accuracy(task: Task, observations: Sequence[Observation], truth: Sequence[Truth]) -> dict[str, float]:
    """Measure, in [0, 1], `top1` and `top5`, or for detection `map` over IoU 0.5 to 0.95 and `map_50` at 0.5.

    For embeddings `nearest1`: how often the nearest of the other images, by its angle, is of the same class.
    """
    measure = {"classification": measure_top_k, "detection": measure_map, "embedding": measure_nearest}[task]
    return {name: round(value, 6) for name, value in measure(observations, truth).items()}


def accuracy_drop(task: Task, reference: dict[str, float], candidate: dict[str, float]) -> float:
    """Return by how much the candidate is worse, as a share; negative where it is better."""
    return round(reference[PRIMARY[task]] - candidate[PRIMARY[task]], 6)


def measure_top_k(observations: Sequence[Observation], truth: Sequence[Truth]) -> dict[str, float]:
    logits = torch.stack([image["logits"] for image in observations])
    class_ids = torch.stack([image["class_id"] for image in truth])
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices
    hits = best == class_ids[:, None]
    return {"top1": float(hits[:, 0].float().mean()), "top5": float(hits.any(dim=1).float().mean())}


def measure_nearest(observations: Sequence[Observation], truth: Sequence[Truth]) -> dict[str, float]:
    vectors = functional.normalize(torch.stack([image["embedding"] for image in observations]), dim=1)
    class_ids = torch.stack([image["class_id"] for image in truth])
    nearest = (vectors @ vectors.T).fill_diagonal_(-2).argmax(dim=1)
    return {"nearest1": float((class_ids[nearest] == class_ids).float().mean())}


def find_hits(observations: Sequence[Observation], truth: Sequence[Truth]) -> list[bool]:
    """Return for each image of a classifier whether its best class is the true one."""
    return [
        int(image["logits"].argmax()) == int(known["class_id"])
        for image, known in zip(observations, truth, strict=True)
    ]


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
