"""One training: PyTorch Lightning runs its epochs; what was best is kept, and it can go on after any end."""

import logging
import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping, EMAWeightAveraging, ModelCheckpoint
from torch.utils.data import DataLoader, Dataset

from mar_tools.terminal import print_line
from mar_tools.training.interruptions import ENDING
from mar_tools.training.keeping import BEST, LAST, UnfinishedError, WholeFiles, best_score, is_at_end, read_kept
from mar_tools.training.pictures import EpochSampler, mix_seeds
from mar_tools.training.progress import new_progress
from mar_tools.training.settings import Settings
from vision_serving.config import DeviceType
from vision_serving.cores import usable_cores
from vision_serving.errors import ConfigError
from vision_serving.foreign_errors import is_out_of_memory

TABLE = "training.csv"
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
    last, began = folder / LAST, time.monotonic()
    kept = read_kept(last) if last.exists() else None
    if kept is None or not is_at_end(kept, settings.epochs):
        loaders = [new_loader(part, settings, training=part is data[0], collate=collate) for part in data]
        sampler = loaders[0].sampler
        if kept is not None and isinstance(sampler, EpochSampler):
            sampler.set_epoch(kept["epoch"] + 1)  # Lightning begins an epoch that goes on before it tells the number
        with quiet_lightning(), using_all_cores():
            torch.manual_seed(settings.seed)
            training.train()  # Lightning leaves it as it comes, and networks come in eval mode
            trainer = new_trainer(str(training.judged_by), settings, folder, device_type, len(loaders[0]))
            with told_out_of_memory():
                trainer.fit(training, loaders[0], loaders[1], ckpt_path=last if kept else None, weights_only=False)
    best, last_epoch = read_kept(folder / BEST), read_kept(last)["epoch"] + 1
    if last_epoch < settings.epochs:
        print_line(f"epoch {last_epoch:3} was the last: {settings.patience} epochs without a better one")
    return Fitted(
        state=best["state_dict"],
        score=best_score(best),
        epoch=best["epoch"] + 1,
        epochs=last_epoch,
        seconds=time.monotonic() - began,
    )


@contextmanager
def told_out_of_memory() -> Iterator[None]:
    """Say what to do where a batch does not fit. Raises ConfigError."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if "DataLoader worker" in str(error):
            raise UnfinishedError(
                "a process that reads pictures was killed, mostly because the memory ran out; end other programs, and "
                "go on with --resume"
            ) from error
        if not is_out_of_memory(error):
            raise
        raise ConfigError(
            "there is not enough memory for a batch; begin anew with a smaller --batch-size or --size, and --force"
        ) from error


def new_trainer(judged_by: str, settings: Settings, folder: Path, device_type: DeviceType, steps: int) -> Trainer:
    """Return Lightning's trainer, which keeps the best and the last epoch in `folder`. steps: of an epoch.

    The table is written before the checkpoint of its epoch, so that no epoch that is kept is missing in it.
    """
    callbacks: list[Callback] = [
        SeedOfEpoch(settings.seed),
        *new_progress(folder / TABLE, judged_by),
        EarlyStopping(judged_by, mode="max", patience=settings.patience, check_on_train_epoch_end=True),
        new_keeper(folder, BEST, monitor=judged_by, mode="max"),
        new_keeper(folder, LAST),  # apart: `save_last` of the other one keeps the last that was the best
    ]
    if settings.average:
        decay = min(SLOWEST_AVERAGE, max(0.5, 1 - AVERAGED_PART / (settings.epochs * steps)))
        callbacks.append(EMAWeightAveraging(decay=decay))
    return Trainer(
        accelerator="gpu" if device_type == "cuda" else "cpu",
        devices=1,
        precision=choose_precision(settings, device_type),
        max_epochs=settings.epochs,
        gradient_clip_val=CLIPPED_NORM,
        callbacks=callbacks,
        plugins=[WholeFiles()],
        logger=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
    )


def new_keeper(folder: Path, file: str, **choice: Any) -> ModelCheckpoint:
    """Return what keeps one epoch in a file of this name: by Lightning's `choice`, else the last one."""
    name = file.removesuffix(".ckpt")
    return ModelCheckpoint(folder, name, enable_version_counter=False, save_on_train_epoch_end=True, **choice)


class SeedOfEpoch(Callback):
    """Makes what the network draws, as for dropout, a matter of the epoch and not of when the process began."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def on_train_epoch_start(self, trainer: Trainer, training: LightningModule) -> None:
        torch.manual_seed(mix_seeds(self._seed, trainer.current_epoch))


@contextmanager
def using_all_cores() -> Iterator[None]:
    """Let PyTorch compute with the cores that this process may use: it does not know of a container's share."""
    before = torch.get_num_threads()
    torch.set_num_threads(usable_cores())
    try:
        yield
    finally:
        torch.set_num_threads(before)


def new_loader(data: Dataset[Any], settings: Settings, training: bool, collate: Any = None) -> DataLoader[Any]:
    """Return batches of a data set, in random order to train. A last batch of one image is left out: no statistics."""
    count = len(data)  # type: ignore[arg-type]
    alone = training and count > 1 and count % settings.batch_size == 1
    return DataLoader(
        data,
        settings.batch_size,
        sampler=EpochSampler(count, settings.seed) if training else None,
        drop_last=alone,
        num_workers=min(MOST_LOADERS, usable_cores() - 1),
        persistent_workers=usable_cores() > 1,
        collate_fn=collate,
        worker_init_fn=leave_signals_to_the_main_process,
        pin_memory=torch.cuda.is_available(),
    )


def leave_signals_to_the_main_process(_: int) -> None:
    """Ignore what a terminal or a service manager sends to each process: the main one ends the others."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


def choose_precision(settings: Settings, device_type: DeviceType) -> Any:
    """Return Lightning's name of the precision to train in."""
    is_on = settings.amp == "on" or (settings.amp == "auto" and device_type == "cuda")
    if not is_on:
        return "32-true"
    return "16-mixed" if device_type == "cuda" else "bf16-mixed"


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
