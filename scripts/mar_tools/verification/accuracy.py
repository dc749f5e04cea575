"""How good a handler's answers are where the truth is known: top-1 and top-5 accuracy, or COCO's mAP."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from mar_tools.verification.labelled import Truth
from mar_tools.verification.observations import Observation
from vision_serving.config import Task
from vision_serving.errors import ConfigError

PRIMARY: dict[Task, str] = {"classification": "top1", "detection": "map"}


def measure_accuracy(task: Task, observations: Sequence[Observation], truth: Sequence[Truth]) -> dict[str, float]:
    """All in [0, 1]. Classification: `top1`, `top5`. Detection: `map` over IoU 0.5 to 0.95, `map_50` at 0.5."""
    measure: Callable[[Sequence[Observation], Sequence[Truth]], dict[str, float]]
    measure = {"classification": measure_top_k, "detection": measure_map}[task]
    return {name: round(value, 6) for name, value in measure(observations, truth).items()}


def accuracy_drop(task: Task, reference: dict[str, float], candidate: dict[str, float]) -> float:
    """By how much the candidate is worse, as a share; negative where it is better."""
    return round(reference[PRIMARY[task]] - candidate[PRIMARY[task]], 6)


def measure_top_k(observations: Sequence[Observation], truth: Sequence[Truth]) -> dict[str, float]:
    logits = torch.stack([image["logits"] for image in observations])
    class_ids = torch.stack([image["class_id"] for image in truth])
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices
    hits = best == class_ids[:, None]
    return {"top1": float(hits[:, 0].float().mean()), "top5": float(hits.any(dim=1).float().mean())}


def measure_map(observations: Sequence[Observation], truth: Sequence[Truth]) -> dict[str, float]:
    """Boxes of any score count, as many as `max_detections` lets through, up to COCO's 100 a picture."""
    metric = new_map_metric()
    found = [
        {"boxes": image["source_boxes"], "scores": image["scores"], "labels": image["class_ids"]}
        for image in observations
    ]
    metric.update(found, [dict(image) for image in truth])
    figures = metric.compute()
    return {"map": float(figures["map"]), "map_50": float(figures["map_50"])}


def new_map_metric() -> Any:
    """torchmetrics around pycocotools. Raises ConfigError where they are not installed."""
    try:
        import pycocotools  # noqa: F401 (torchmetrics says late and at length that it is missing)
        from torchmetrics.detection import MeanAveragePrecision
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"`annotations` needs the package {error.name!r}: pip install -r requirements-evaluation.txt"
        ) from error
    metric = MeanAveragePrecision(iou_type="bbox", backend="pycocotools")
    metric.warn_on_many_detections = False
    return metric
