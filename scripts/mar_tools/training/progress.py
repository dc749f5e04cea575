"""How far a training is: a line an epoch in its table, and the same for people, below a bar on a terminal."""

import csv
import io
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mar_tools.terminal import print_line
from mar_tools.training.whole_files import write_whole
from vision_serving.errors import ConfigError

COLUMNS = ("epoch", "loss", "validation_loss", "score", "learning_rate", "images_per_s", "seconds")


class BrokenLossError(ConfigError):
    """A training whose loss is no number any more."""


class History(Callback):
    """Writes a line an epoch into a table, and says it. Raises BrokenLossError where the loss is no number any more."""

    def __init__(self, path: Path, judged_by: str) -> None:
        self._path, self._judged_by = path, judged_by
        self._began = self._trained = 0.0

    def on_train_epoch_start(self, trainer: Trainer, training: LightningModule) -> None:
        self._began = self._trained = time.monotonic()

    def on_validation_start(self, trainer: Trainer, training: LightningModule) -> None:
        """Note the end of the epoch's training: Lightning validates inside of an epoch."""
        self._trained = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, training: LightningModule) -> None:
        figures = trainer.callback_metrics
        loss = float(figures["loss"])
        if loss != loss or abs(loss) == float("inf"):
            raise BrokenLossError(
                f"the loss of epoch {trainer.current_epoch + 1} is {loss}: the weights are broken; give a lower "
                "--learning-rate than "
                f"{training.settings.learning_rate:.3g}, or --amp off"  # type: ignore[union-attr]
            )
        row = self._describe(trainer, figures)
        kept = [each for each in read_history(self._path) if int(each["epoch"]) < row["epoch"]]
        write_history(self._path, [*kept, row])
        best = max((float(each["score"]) for each in kept), default=-1.0) < row["score"]
        print_line(
            f"epoch {row['epoch']:3} of {trainer.max_epochs}: loss {row['loss']:.4f}, {self._judged_by} "
            f"{row['score']:.4f}{' (best)' if best else ''}, {row['images_per_s']} images/s"
        )

    def _describe(self, trainer: Trainer, figures: Any) -> dict[str, Any]:
        loader: Any = trainer.train_dataloader
        images = min(len(loader.dataset), len(loader) * loader.batch_size)  # the last batch may be left out
        validation_loss = figures.get("validation_loss")
        return {
            "epoch": trainer.current_epoch + 1,
            "loss": round(float(figures["loss"]), 4),
            "validation_loss": "" if validation_loss is None else round(float(validation_loss), 4),
            "score": round(float(figures[self._judged_by]), 4),
            "learning_rate": f"{trainer.optimizers[0].param_groups[0]['lr']:.3g}",
            "images_per_s": round(images / max(1e-9, self._trained - self._began), 1),
            "seconds": round(time.monotonic() - self._began, 1),
        }


class Bar(Callback):
    """Shows the batches of an epoch on a terminal, on standard error: standard output is for results."""

    def __init__(self) -> None:
        self._progress: Progress | None = None

    def on_train_epoch_start(self, trainer: Trainer, training: LightningModule) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), MofNCompleteColumn())
        self._progress = Progress(
            *columns, TimeRemainingColumn(), TextColumn("{task.fields[loss]}"),
            console=Console(stderr=True), transient=True,
        )  # fmt: skip
        self._progress.start()
        title = f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}"
        self._task = self._progress.add_task(title, total=trainer.num_training_batches, loss="")

    def on_train_batch_end(
        self, trainer: Trainer, training: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._progress is not None:
            loss = float(outputs["loss"]) if isinstance(outputs, dict) else float(outputs)
            self._progress.update(self._task, advance=1, loss=f"loss {loss:.3f}")

    def on_validation_start(self, trainer: Trainer, training: LightningModule) -> None:
        if self._progress is not None:
            self._progress.update(self._task, loss="validation")

    def on_validation_end(self, trainer: Trainer, training: LightningModule) -> None:
        self._close()

    def on_exception(self, trainer: Trainer, training: LightningModule, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def new_progress(path: Path, judged_by: str) -> list[Callback]:
    """Return what tells people of a training whose table is at `path`."""
    return [*([Bar()] if sys.stderr.isatty() else []), History(path, judged_by)]


def read_history(path: Path) -> Sequence[dict[str, str]]:
    """Return the lines of a training's table; none where there is no file."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if str(row.get("epoch")).isdecimal()]


def write_history(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write a training's table."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, text.getvalue().encode())
