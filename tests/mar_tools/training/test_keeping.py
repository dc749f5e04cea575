"""What is kept of a training stays whole, and a search goes on where it ended."""

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

from mar_tools.compressing.fronts import Point
from mar_tools.training.handing_over import save_weights, write_recipe
from mar_tools.training.keeping import WholeFiles, read_kept
from mar_tools.training.pictures import EpochSampler, seeded
from mar_tools.training.progress import BrokenLossError, read_history, write_history
from mar_tools.training.records import write_record
from mar_tools.training.searching import SEARCHED, search_settings
from mar_tools.training.settings import Settings
from vision_serving.errors import ConfigError


@contextmanager
def files_of_at_most(count: int) -> Iterator[None]:
    """Let no file of this process grow beyond so many bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_checkpoint_that_finds_no_room_leaves_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    WholeFiles().save_checkpoint({"epoch": 1, "weights": torch.zeros(100)}, path)
    with files_of_at_most(10_000), pytest.raises(ConfigError, match=r"cannot be written .* go on with --resume"):
        WholeFiles().save_checkpoint({"epoch": 2, "weights": torch.rand(100_000)}, path)
    assert read_kept(path)["epoch"] == 1
    assert [each.name for each in tmp_path.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("training.json", lambda folder: write_record(folder, {"classes": ["x" * 100] * 200})),
        ("training.csv", lambda folder: write_history(folder / "training.csv", [{"epoch": 1}] * 5000)),
        ("recipe.yaml", lambda folder: write_recipe({"labels": ["x" * 100] * 200}, folder / "recipe.yaml", "new")),
        ("weights.safetensors", lambda folder: save_weights(nn.Linear(100, 100), folder / "weights.safetensors")),
        ("point.json", lambda folder: Point(name="x" * 20_000, recipe="").write(folder / "point.json")),
    ],
)
def test_a_file_that_finds_no_room_leaves_the_one_before(
    name: str, write: Callable[[Path], object], tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(b"{}")
    with files_of_at_most(10_000), pytest.raises(OSError, match="File too large"):
        write(tmp_path)
    assert (tmp_path / name).read_bytes() == b"{}"
    assert [each.name for each in tmp_path.iterdir()] == [name]


def test_a_damaged_checkpoint_is_told(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").write_bytes(b"half of a file")
    with pytest.raises(ConfigError, match=r"not a readable checkpoint .* --force"):
        read_kept(tmp_path / "last.ckpt")


def test_a_table_that_was_cut_off_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    write_history(tmp_path / "t.csv", [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0}])
    text = (tmp_path / "t.csv").read_text()
    (tmp_path / "t.csv").write_text(text + "\n,,")
    assert [row["epoch"] for row in read_history(tmp_path / "t.csv")] == ["1", "2"]


def test_an_epoch_has_the_same_order_whenever_it_begins() -> None:
    sampler, again = EpochSampler(50, seed=3), EpochSampler(50, seed=3)
    orders = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
    again.set_epoch(2)
    assert list(again) == orders[2]
    assert sorted(orders[2]) == list(range(100, 150))
    assert [place - 100 for place in orders[2]] != [place - 50 for place in orders[1]]


def test_a_picture_is_changed_alike_whatever_was_drawn_before() -> None:
    with seeded(1, 7):
        first = torch.rand(3)
    drawn = torch.rand(1)
    with seeded(1, 7):
        assert torch.equal(torch.rand(3), first)
    assert not torch.equal(torch.rand(1), drawn)


class Attempts:
    """Stands for trainings: notes what was asked for, and ends the process where it is told to."""

    def __init__(self, ends_at: int | None = None, breaks: bool = False) -> None:
        self.seen: list[tuple[str, tuple[object, ...]]] = []
        self._ends_at, self._breaks = ends_at, breaks

    def __call__(self, settings: Settings, place: Path) -> float:
        self.seen.append((place.name, tuple(getattr(settings, name) for name in SEARCHED)))
        if len(self.seen) == self._ends_at:
            raise SystemExit(143)
        if self._breaks and len(self.seen) == 1:
            raise BrokenLossError("the loss is nan")
        return 1 / (1 + settings.learning_rate)


def test_a_search_that_was_ended_tries_the_half_setting_again_and_no_other(tmp_path: Path) -> None:
    whole, first, second = Attempts(), Attempts(ends_at=3), Attempts()
    search_settings(Settings(), 6, tmp_path / "whole", SEARCHED, whole)
    with pytest.raises(SystemExit):
        search_settings(Settings(), 6, tmp_path / "broken", SEARCHED, first)
    _, study = search_settings(Settings(), 6, tmp_path / "broken", SEARCHED, second)
    assert first.seen[:2] + second.seen == whole.seen
    assert first.seen[2] == second.seen[0]
    assert sum(trial.value is not None for trial in study.trials) == 6


def test_a_finished_search_tries_nothing_again(tmp_path: Path) -> None:
    found, _ = search_settings(Settings(), 3, tmp_path, SEARCHED, Attempts())
    again = Attempts()
    assert search_settings(Settings(), 3, tmp_path, SEARCHED, again)[0] == found
    assert again.seen == []


def test_a_setting_whose_loss_breaks_counts_as_the_worst(tmp_path: Path) -> None:
    _, study = search_settings(Settings(), 3, tmp_path, SEARCHED, Attempts(breaks=True))
    assert study.trials[0].value == 0
    assert study.best_trial.number != 0
