"""What a training step of a classifier computes, and how it is judged."""

from collections.abc import Sequence
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR
from torchmetrics.classification import MulticlassAccuracy

from mar_tools.training.settings import Settings

WARM_UP = 0.05  # of all steps, in which the learning rate rises


class ClassifierTraining(LightningModule):
    """Cross-entropy with smoothed labels, AdamW, a warm-up and a cosine. `judged_by` is a share from 0 to 1."""

    judged_by = "accuracy"

    def __init__(self, network: nn.Module, normalize: nn.Module, classes: int, settings: Settings) -> None:
        super().__init__()
        self.network, self.normalize, self.settings = network, normalize, settings
        self.compute_loss = nn.CrossEntropyLoss(label_smoothing=settings.label_smoothing)
        self.accuracy = MulticlassAccuracy(classes, average="micro")

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits (N, C) of uint8 (N, H, W, 3)."""
        logits: Tensor = self.network(self.normalize(pixels).contiguous(memory_format=torch.channels_last))
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        pixels, class_ids = batch
        loss: Tensor = self.compute_loss(self(pixels), class_ids)
        self.log("loss", loss, prog_bar=True, on_step=False, on_epoch=True, batch_size=len(pixels))
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        pixels, class_ids = batch
        logits = self(pixels)
        self.accuracy(logits, class_ids)
        count = len(pixels)
        self.log("validation_loss", nn.functional.cross_entropy(logits, class_ids), batch_size=count)
        self.log(self.judged_by, self.accuracy, prog_bar=True, batch_size=count)

    def configure_optimizers(self) -> Any:
        return new_optimizer(self.parameters(), self.settings, int(self.trainer.estimated_stepping_batches))


def new_optimizer(parameters: Any, settings: Settings, steps: int) -> dict[str, Any]:
    """Return AdamW, whose decay leaves norms and biases alone, and a schedule of `steps` for Lightning."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    groups: Sequence[dict[str, Any]] = [
        {"params": [each for each in trained if each.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [each for each in trained if each.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate)
    rising = max(1, round(WARM_UP * steps))
    schedule = SequentialLR(
        optimizer,
        [LinearLR(optimizer, 0.05, total_iters=rising), CosineAnnealingLR(optimizer, max(1, steps - rising))],
        [rising],
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
