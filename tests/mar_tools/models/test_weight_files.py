"""What is said of a file of weights, whoever wrote it and however."""

import argparse
import functools
import pathlib
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mar_tools.models.weight_files import look_into


class Settings(dict[str, Any]):
    """As EasyDict and others: a dict of another class."""


class Slotted:
    __slots__ = ("rate",)

    def __init__(self) -> None:
        self.rate = 0.1


def tiny() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


BESIDE: dict[str, object] = {
    "a namespace and a path": argparse.Namespace(lr=0.1, output_dir=pathlib.Path("runs")),
    "a path of Windows": pathlib.PureWindowsPath("C:/runs"),
    "numbers of numpy": [np.float64(0.5), np.arange(3), np.dtype("float32")],
    "dicts of other classes": [Settings(depth=18), defaultdict(list, loss=[0.5])],
    "slots": Slotted(),
    "functions": [functools.partial(print, 1), len, nn.functional.relu],
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
@pytest.mark.parametrize("beside", BESIDE.values(), ids=BESIDE)
def test_weights_are_found_whatever_lies_beside_them(tmp_path: Path, beside: object, zipped: bool) -> None:
    trained = tiny().state_dict()
    torch.save(
        {"state_dict": trained, "extra": beside, "epoch": 3},
        tmp_path / "c.ckpt",
        _use_new_zipfile_serialization=zipped,
    )
    content = look_into(tmp_path / "c.ckpt")
    [state] = content.states
    assert (state.key, state.head, content.beside["epoch"]) == ("state_dict", ("3", 2), 3)
    assert all(torch.equal(values, trained[name]) for name, values in state.tensors.items())


def test_a_whole_model_gives_its_state_dict_and_the_name_of_its_class(tmp_path: Path) -> None:
    model = tiny()
    model.register_buffer("passing", torch.zeros(1), persistent=False)
    torch.save({"model": model, "ema": None}, tmp_path / "m.pt")
    [state] = look_into(tmp_path / "m.pt").states
    assert (state.key, state.model_class) == ("model", "torch.nn.modules.container.Sequential")
    assert {name: values.tolist() for name, values in state.tensors.items()} == {
        name: values.tolist() for name, values in model.state_dict().items()
    }


def test_nothing_that_a_file_names_is_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return eval, (f"open({str(tmp_path / 'sprung')!r}, 'w')",)

    torch.save({"state_dict": tiny().state_dict(), "trap": Trap()}, tmp_path / "c.pth")
    assert look_into(tmp_path / "c.pth").states
    assert not (tmp_path / "sprung").exists()


def test_the_settings_of_a_training_are_told(tmp_path: Path) -> None:
    args = argparse.Namespace(model="resnet18", epochs=90)
    torch.save({"model": tiny().state_dict(), "args": args, "classes": ["cat", "dog"]}, tmp_path / "c.pth")
    beside = look_into(tmp_path / "c.pth").beside
    assert beside == {"args": {"model": "resnet18", "epochs": 90}, "classes": ["cat", "dog"]}


def test_an_average_over_training_is_told_from_the_rest(tmp_path: Path) -> None:
    average = torch.optim.swa_utils.AveragedModel(tiny())
    state = {"model": tiny().state_dict(), "model_ema": average.state_dict(), "swa": tiny().state_dict()}
    torch.save(state, tmp_path / "c.pth")
    states = look_into(tmp_path / "c.pth").states
    assert [(found.key, found.is_averaged, found.prefix) for found in states] == [
        ("model", False, ""),
        ("model_ema", True, "module."),
        ("swa", True, ""),
    ]
    assert states[0].shapes == states[1].shapes


def test_a_program_is_known_under_every_suffix(tmp_path: Path) -> None:
    torch.jit.script(tiny()).save(tmp_path / "c.pth")  # type: ignore[no-untyped-call]
    assert look_into(tmp_path / "c.pth").kind == "torchscript"


def test_safetensors_are_known_under_every_suffix(tmp_path: Path) -> None:
    save_file(tiny().state_dict(), tmp_path / "c.bin", metadata={"arch": "tiny"})
    content = look_into(tmp_path / "c.bin")
    assert (content.kind, content.beside, content.states[0].head) == ("safetensors", {"arch": "tiny"}, ("3", 2))
