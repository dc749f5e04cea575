"""What a training keeps on disk to go on with: whole files at any moment, whatever ends the process."""

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint

from vision_serving.errors import ConfigError

BEST, LAST = "best.ckpt", "last.ckpt"


class UnfinishedError(ConfigError):
    """A training that something outside of it ended, as a full disk: it can go on, and says nothing of its settings."""


class WholeFiles(TorchCheckpointIO):
    """Writes a checkpoint beside the one before, which it then replaces.

    Lightning's own writes into the folder of temporary files and moves it: across file systems that is a copy, which
    a full disk breaks off in the middle.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        content = io.BytesIO()
        torch.save(checkpoint, content)
        target = Path(path)
        partial = target.with_suffix(".part")
        try:
            with partial.open("wb") as file:
                file.write(content.getbuffer())
            partial.replace(target)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise UnfinishedError(
                f"{target}: cannot be written ({error.strerror}); the epochs before are kept: make room, and go on "
                "with --resume"
            ) from error


def read_kept(path: Path) -> dict[str, Any]:
    """Return a checkpoint on the CPU. Raises ConfigError for a file that is none."""
    with told_if_broken(path):
        kept: dict[str, Any] = torch.load(path, weights_only=False, map_location="cpu")
    return kept


@contextmanager
def told_if_broken(path: Path) -> Iterator[None]:
    """Turn what PyTorch raises for a damaged checkpoint into ConfigError."""
    try:
        yield
    except Exception as error:  # of pickle, zip files and torch
        raise ConfigError(f"{path}: not a readable checkpoint ({error}); begin anew with --force") from error


def is_at_end(kept: Mapping[str, Any], epochs: int) -> bool:
    """Return whether the training of a checkpoint has nothing left to do: all epochs, or no better one for long."""
    stopping = next(_states_of(kept, EarlyStopping))
    return bool(kept["epoch"] + 1 >= epochs or stopping["wait_count"] >= stopping["patience"])


def best_score(kept: Mapping[str, Any]) -> float:
    """Return the best figure of the validation until a checkpoint."""
    return float(next(state["best_model_score"] for state in _states_of(kept, ModelCheckpoint) if state["monitor"]))


def _states_of(kept: Mapping[str, Any], callback: type) -> Iterator[Mapping[str, Any]]:
    """Yield what callbacks of a class have in a checkpoint, where their names begin with that of the class."""
    yield from (state for key, state in kept["callbacks"].items() if key.startswith(callback.__name__))
