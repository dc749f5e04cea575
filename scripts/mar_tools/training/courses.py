"""What is asked of a training, and what a task brings to it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mar_tools.training.fitting import Fitted
from mar_tools.training.settings import Settings
from mar_tools.training.splitting import Split
from vision_serving.config import DeviceType

SPLIT = "split.csv"


@dataclass(frozen=True)
class Request:
    """What to train on what. name: of the model in its recipe. weights, size: see `start_network`.

    search: how many settings to try before. stated: settings that differ from those that suit the network. resume,
    force: what to do with a training that `output` holds.
    """

    data: Path
    output: Path
    name: str
    model: str
    weights: str
    size: int | None
    search: int
    stated: Mapping[str, Any]
    device_type: DeviceType
    resume: bool = False
    force: bool = False

    @property
    def seed(self) -> int:
        return int(self.stated.get("seed", Settings().seed))

    def asked(self) -> dict[str, Any]:
        """Return what a training that goes on must have in common with this one."""
        chosen = {"data": str(self.data), "model": self.model, "weights": self.weights, "size": self.size}
        settings = dict.fromkeys(Settings.model_fields) | dict(self.stated)
        return {**chosen, "search": self.search, **settings}


class Course(Protocol):
    """One network with its pictures, trained once or several times, each time from where it began.

    judged_by: the figure of the validation, higher is better. taken: what the network begins with, in words. defaults:
    settings that suit it. searched: those that a search tries. left_out: how many pictures cannot be used.
    """

    judged_by: str
    labels: Sequence[str]
    split: Split[Any]
    taken: str
    left_out: int
    defaults: Mapping[str, Any]
    searched: Sequence[str]

    def fit(self, settings: Settings, place: Path) -> Fitted:
        """Train the network, which has the weights of the best epoch then. place: for checkpoints."""
        ...

    def try_settings(self, settings: Settings, place: Path) -> float:
        """Return what a training with these settings reaches on the validation."""
        ...

    def tell_chance(self, score: float) -> None:
        """Say where a network learned nothing."""
        ...

    def finish(self, output: Path, name: str) -> tuple[dict[str, float], Path]:
        """Judge the network by the pictures of the test, and hand over; return the figures and the recipe."""
        ...
