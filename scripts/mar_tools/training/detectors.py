"""What a training step of a detector computes, and how its epochs are judged: as it will be served."""

import copy
from dataclasses import replace
from itertools import groupby
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torchmetrics.detection import MeanAveragePrecision

from mar_tools.models.checkpoints import DENSE_CANDIDATES
from mar_tools.models.sources.torchvision import default_options
from mar_tools.training.boxed_pictures import Example
from mar_tools.training.classifiers import new_optimizer
from mar_tools.training.detector_networks import DetectorStart
from mar_tools.training.settings import Settings
from vision_serving.graphs.construction import build_graph
from vision_serving.graphs.sources import load_state
from vision_serving.options import DetectionOptions
from vision_serving.results.postprocessing import read_candidates, select_detections


class Judge:
    """The graph that is served, on a copy of a network: mAP over IoU 0.5 to 0.95 of boxes in pixels of the pictures."""

    def __init__(self, start: DetectorStart) -> None:
        self._network = copy.deepcopy(start.network)
        self._graph = build_graph(self._network, "detection", start.preprocessing)
        self._per_class = getattr(self._network, "topk_candidates", DENSE_CANDIDATES)
        self._options = DetectionOptions(score_threshold=0.0, **default_options(self._network))
        self._metric = new_metric()

    def __deepcopy__(self, _: Any) -> "Judge":
        """Stay one: Lightning copies a training whole to average its weights."""
        return self

    def begin(self, network: nn.Module, device: torch.device) -> None:
        """Judge a network as it is now."""
        load_state(self._network, network.state_dict())
        self._graph.to(device)
        self._metric = new_metric()

    @torch.inference_mode()
    def see(self, examples: list[Example]) -> None:
        """Compare what the graph finds in pictures with their boxes."""
        for _, alike in groupby(examples, lambda example: example.pixels.shape):
            group = list(alike)
            outputs = self._graph(torch.stack([example.pixels for example in group]))
            outputs = {name: values.float().cpu() for name, values in outputs.items()}
            for index, example in enumerate(group):
                best = select_detections(read_candidates(outputs, index, 0.0, self._per_class), self._options)
                found = {"boxes": example.geometry.to_source(best.boxes), "scores": best.scores}
                known = {"boxes": example.geometry.to_source(example.boxes.cpu()), "labels": example.class_ids.cpu()}
                self._metric.update([{**found, "labels": best.class_ids}], [{**known, "iscrowd": example.crowds.cpu()}])

    def figures(self) -> dict[str, float]:
        """Return `map` and `map_50` of all that was seen, in [0, 1]."""
        found = self._metric.compute()
        return {name: max(0.0, float(found[name])) for name in ("map", "map_50")}


def new_metric() -> MeanAveragePrecision:
    """Return COCO's measure, which takes the best hundred boxes of a picture, as those that are served most often."""
    metric = MeanAveragePrecision()
    metric.warn_on_many_detections = False
    return metric


class DetectorTraining(LightningModule):
    """The detector's own losses, AdamW, a warm-up and a cosine. `judged_by` is COCO's mean average precision."""

    judged_by = "map"

    def __init__(self, start: DetectorStart, judge: Judge, settings: Settings) -> None:
        super().__init__()
        self.network, self.settings = start.network, settings
        self._compute_loss, self._keeps_statistics, self._judge = start.compute_loss, start.keeps_statistics, judge

    def train(self, mode: bool = True) -> "DetectorTraining":
        """Leave batch norm as it is where the published weights were trained so."""
        super().train(mode)
        if mode and self._keeps_statistics:
            for module in self.network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def transfer_batch_to_device(self, batch: list[Example], device: torch.device, _: int) -> list[Example]:
        return [
            replace(
                each, pixels=each.pixels.to(device), boxes=each.boxes.to(device), class_ids=each.class_ids.to(device)
            )
            for each in batch
        ]

    def training_step(self, batch: list[Example], _: int) -> Tensor:
        loss = self._compute_loss(self.network, batch)
        self.log("loss", loss, on_step=False, on_epoch=True, batch_size=len(batch))
        return loss

    def on_validation_epoch_start(self) -> None:
        self._judge.begin(self.network, self.device)

    def validation_step(self, batch: list[Example], _: int) -> None:
        self._judge.see(batch)

    def on_validation_epoch_end(self) -> None:
        self.log(self.judged_by, self._judge.figures()["map"])

    def configure_optimizers(self) -> Any:
        return new_optimizer(self.parameters(), self.settings, int(self.trainer.estimated_stepping_batches))
