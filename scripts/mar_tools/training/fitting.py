"""One training: PyTorch Lightning runs its epochs; what was best is kept, and it can go on after any end."""

import csv
import logging
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from pytorch_lightning.callbacks import EarlyStopping, EMAWeightAveraging, ModelCheckpoint, TQDMProgressBar
from torch.utils.data import DataLoader, Dataset

from mar_tools.terminal import print_line
from mar_tools.training.settings import Settings
from vision_serving.config import DeviceType
from vision_serving.cores import usable_cores

BEST, LAST, TABLE = "best.ckpt", "last.ckpt", "training.csv"
COLUMNS = ("epoch", "loss", "validation_loss", "score", "learning_rate", "images_per_s", "seconds")
MOST_LOADERS = 8
CLIPPED_NORM = 5.0  # of gradients
SLOWEST_AVERAGE, AVERAGED_PART = 0.9998, 10  # an average reaches back over a tenth of the steps


@dataclass(frozen=True)
class Fitted:
    """What a training gave. score: of the best epoch, counted from 1, which `state` has. seconds: of this run."""

    state: dict[str, torch.Tensor]
    score: float
    epoch: int
    epochs: int
    seconds: float

    def network_state(self) -> dict[str, torch.Tensor]:
        """Return the state dict of the training's `network` alone."""
        prefix = "network."
        return {name.removeprefix(prefix): values for name, values in self.state.items() if name.startswith(prefix)}


def fit(
    training: LightningModule,
    data: tuple[Dataset[Any], Dataset[Any]],
    settings: Settings,
    folder: Path,
    device_type: DeviceType,
    collate: Any = None,
) -> Fitted:
    """Train on the first data set, and judge each epoch by the second; go on from the last epoch that `folder` has.

    training: names its figure of the validation in `judged_by`, higher is better.
    """
    folder.mkdir(parents=True, exist_ok=True)
    last, judged_by = folder / LAST, str(training.judged_by)
    history = History(folder / TABLE, judged_by)
    best = ModelCheckpoint(
        folder, BEST.removesuffix(".ckpt"), monitor=judged_by, mode="max", save_last=True,
        enable_version_counter=False,
    )  # fmt: skip
    callbacks: list[Callback] = [
        history,
        best,
        EarlyStopping(judged_by, mode="max", patience=settings.patience),
    ]
    loaders = [new_loader(part, settings, training=part is data[0], collate=collate) for part in data]
    if settings.average:
        steps = settings.epochs * len(loaders[0])
        decay = min(SLOWEST_AVERAGE, max(0.5, 1 - AVERAGED_PART / steps))
        callbacks.append(EMAWeightAveraging(decay=decay))
    if history.is_shown:
        callbacks.append(TQDMProgressBar(leave=False))
    with quiet_lightning():
        seed_everything(settings.seed, workers=True, verbose=False)
        trainer = Trainer(
            accelerator="gpu" if device_type == "cuda" else "cpu",
            devices=1,
            precision=choose_precision(settings, device_type),
            max_epochs=settings.epochs,
            gradient_clip_val=CLIPPED_NORM,
            callbacks=callbacks,
            logger=False,
            enable_model_summary=False,
            enable_progress_bar=history.is_shown,
            num_sanity_val_steps=0,
            default_root_dir=folder,
        )
        began = time.monotonic()
        trainer.fit(training, loaders[0], loaders[1], ckpt_path=last if last.exists() else None, weights_only=False)
    if trainer.interrupted:
        raise KeyboardInterrupt
    kept = torch.load(folder / BEST, weights_only=False, map_location="cpu")
    return Fitted(
        state=kept["state_dict"],
        score=float(best.best_model_score or 0.0),
        epoch=kept["epoch"] + 1,
        epochs=trainer.current_epoch,
        seconds=time.monotonic() - began,
    )


def new_loader(data: Dataset[Any], settings: Settings, training: bool, collate: Any = None) -> DataLoader[Any]:
    """Return batches of a data set, in random order to train. A last batch of one image is left out: no statistics."""
    count = len(data)  # type: ignore[arg-type]
    alone = training and count > 1 and count % settings.batch_size == 1
    return DataLoader(
        data,
        settings.batch_size,
        shuffle=training,
        drop_last=alone,
        num_workers=min(MOST_LOADERS, usable_cores() - 1),
        persistent_workers=usable_cores() > 1,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
    )


def choose_precision(settings: Settings, device_type: DeviceType) -> Any:
    """Return Lightning's name of the precision to train in."""
    is_on = settings.amp == "on" or (settings.amp == "auto" and device_type == "cuda")
    if not is_on:
        return "32-true"
    return "16-mixed" if device_type == "cuda" else "bf16-mixed"


class History(Callback):
    """Writes a line an epoch into a table, and says it where no bar does."""

    def __init__(self, path: Path, judged_by: str) -> None:
        self._path, self._judged_by = path, judged_by
        self._began = 0.0
        self.is_shown = sys.stderr.isatty()

    def on_train_epoch_start(self, trainer: Trainer, training: LightningModule) -> None:
        self._began = time.monotonic()

    def on_validation_end(self, trainer: Trainer, training: LightningModule) -> None:
        """Write the epoch: Lightning validates before an epoch's own figures are summed, so they come a step later."""
        self._validated = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, training: LightningModule) -> None:
        figures = trainer.callback_metrics
        seconds = self._validated - self._began
        images = len(trainer.train_dataloader.dataset)  # type: ignore[union-attr]
        epoch = trainer.current_epoch + 1
        row = {
            "epoch": epoch,
            "loss": round(float(figures["loss"]), 4),
            "validation_loss": round(float(figures["validation_loss"]), 4) if "validation_loss" in figures else "",
            "score": round(float(figures[self._judged_by]), 4),
            "learning_rate": f"{trainer.optimizers[0].param_groups[0]['lr']:.3g}",
            "images_per_s": round(images / seconds, 1),
            "seconds": round(seconds, 1),
        }
        rows = [kept for kept in read_history(self._path) if int(kept["epoch"]) < epoch]
        with self._path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows([*rows, row])
        if not self.is_shown:
            score = f"{self._judged_by} {row['score']}"
            print_line(f"epoch {epoch}: loss {row['loss']}, {score}, {row['images_per_s']} images/s")


def read_history(path: Path) -> Sequence[dict[str, str]]:
    """Return the lines of a training's table; none where there is no file."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning's notes on devices, tips and counts of loaders to itself; errors pass."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning.fabric", "lightning_fabric")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
