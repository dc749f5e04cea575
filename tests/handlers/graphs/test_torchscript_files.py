"""A TorchScript file is a program. One that touches files is refused before any of it runs."""

import zipfile
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn

from vision_serving.backends.torchscript import load_graph
from vision_serving.errors import BackendError, ConfigError
from vision_serving.graphs.torchscript_files import load_torchscript

CPU = torch.device("cpu")


def write_note(values: Tensor, path: str) -> None:
    torch.save(values, path)


def count_up(path: str) -> int:
    number = len(path)
    while number > 0 and path == "never":
        number += 1
    return number


@torch.jit.interface
class Step(nn.Module):
    def forward(self, values: Tensor) -> Tensor:  # type: ignore[empty-body]
        pass


class Plain(nn.Module):
    def __init__(self, path: str = "") -> None:
        super().__init__()
        self.path = path

    def forward(self, values: Tensor) -> Tensor:
        return values + 1


class Saves(Plain):
    def forward(self, values: Tensor) -> Tensor:
        torch.save(values, self.path)
        return values


class Reads(Plain):
    def forward(self, values: Tensor) -> Tensor:
        return values + torch.from_file(self.path, True, 4)


class SavesElsewhere(Plain):
    @torch.jit.export
    def never_called(self, values: Tensor) -> None:
        torch.save(values, self.path)


class CallsAFunction(Plain):
    def forward(self, values: Tensor) -> Tensor:
        write_note(values, self.path)
        return values


class HoldsAStep(nn.Module):
    step: Step

    def __init__(self, path: str) -> None:
        super().__init__()
        self.step = Saves(path)  # type: ignore[assignment]

    def forward(self, values: Tensor) -> Tensor:
        return self.step.forward(values)


class SavesWhenItIsLoaded(Plain):
    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.path, self.training = state
        torch.save(torch.zeros(1), self.path)


class LoopsWhenItIsLoaded(Plain):
    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.path, self.training = state
        count_up(state[0])


class LoopsWhenItIsAsked(Plain):
    def forward(self, values: Tensor) -> Tensor:
        for number in range(2):
            values = values + number
        return values


class ReadsAPicture(Plain):
    def forward(self, values: Tensor) -> Tensor:
        picture: Tensor = torch.ops.image.read_file(self.path)
        return values + picture


class Suppresses(nn.Module):
    def forward(self, boxes: Tensor) -> Tensor:
        kept: Tensor = torchvision.ops.nms(boxes, boxes[:, 0], 0.5)
        return kept


def write(network: nn.Module, folder: Path) -> Path:
    path = folder / "model.pt"
    torch.jit.script(network).save(str(path))  # type: ignore[no-untyped-call]
    return path


@pytest.mark.parametrize(
    "kind", [Saves, Reads, SavesElsewhere, CallsAFunction, HoldsAStep, SavesWhenItIsLoaded, ReadsAPicture]
)
@pytest.mark.parametrize("depth", [0, 2])
def test_what_touches_files_is_refused_wherever_it_stands_before_it_runs(
    kind: type[Plain], depth: int, tmp_path: Path
) -> None:
    network: nn.Module = kind(str(tmp_path / "canary"))
    for _ in range(depth):
        network = nn.Sequential(network)
    path = write(network, tmp_path)
    (tmp_path / "canary").unlink(missing_ok=True)
    with pytest.raises(ConfigError, match=r"model\.pt: code/.*may only compute"):
        load_torchscript(path, CPU)
    assert not (tmp_path / "canary").exists()


def test_what_loops_while_it_is_loaded_is_refused_for_nothing_would_end_it(tmp_path: Path) -> None:
    path = write(nn.Sequential(LoopsWhenItIsLoaded("never"), Plain()), tmp_path)
    with pytest.raises(ConfigError, match=r"its count_up has a loop, .* is loaded; .*may only compute"):
        load_torchscript(path, CPU)


def rewrite(path: Path, body: str) -> None:
    """Put lines into `forward`, as no compiler writes them."""
    with zipfile.ZipFile(path) as packed:
        files = {entry: packed.read(entry) for entry in packed.namelist()}
    with zipfile.ZipFile(path, "w") as packed:
        for entry, content in files.items():
            is_code = entry.endswith(".py") and b"def forward" in content
            changed = content.replace(b"    return", f"    {body}\n    return".encode(), 1)
            packed.writestr(entry, changed if is_code else content)


@pytest.mark.parametrize(
    "body",
    [
        'f = torch.save\n    f(values, "{}")',
        'getattr(torch, "save")(values, "{}")',
        'getattr(torch, "sa" "ve")(values, "{}")',
        'getattr(torch, "s\\141ve")(values, "{}")',
        'ops.aten.save(values, "{}")',
        'aten = ops.aten\n    aten.save(values, "{}")',
        'o = ops\n    getattr(o, "aten").mul(values, 2)',
        'getattr(ops, "image").decode_png(values)',
        'ops.image.write_file("{}", values)',
        'ops.prim.rpc_async("peer", "f", (values,))',
        'ops.prim.rpc_sync("peer", "f", (values,))',
        'ops.prim.rpc_remote("peer", "f", (values,))',
        'getattr(ops.prim, "rpc_sync")("peer", "f", (values,))',
        'torch . \\\n      save(values, "{}")',
    ],
)
def test_what_no_compiler_writes_is_refused_too(body: str, tmp_path: Path) -> None:
    path = write(Plain(), tmp_path)
    rewrite(path, body.format(tmp_path / "canary"))
    with pytest.raises(ConfigError, match="may only compute"):
        load_torchscript(path, CPU)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("body", ["def (", "x = " + "(" * 500 + "1" + ")" * 500])
def test_code_that_cannot_be_read_is_refused(body: str, tmp_path: Path) -> None:
    path = write(Plain(), tmp_path)
    rewrite(path, body)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_torchscript(path, CPU)


def test_two_files_that_differ_by_case_are_refused(tmp_path: Path) -> None:
    path = write(Plain(), tmp_path)
    with zipfile.ZipFile(path, "a") as packed:
        code = next(name for name in packed.namelist() if name.endswith(".py"))
        packed.writestr(code.replace("/code/", "/CODE/"), b"")
    with pytest.raises(ConfigError, match="a file twice"):
        load_torchscript(path, CPU)


@pytest.mark.parametrize(
    "network",
    [Plain(), Suppresses(), LoopsWhenItIsAsked()],
    ids=["plain", "operators of torchvision", "a loop that is no part of loading"],
)
def test_what_only_computes_is_loaded(network: nn.Module, tmp_path: Path) -> None:
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]])
    assert torch.equal(load_torchscript(write(network, tmp_path), CPU)(boxes), network(boxes))


def test_the_artifact_of_an_archive_is_looked_at_as_well(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    script = torch.jit.script(Saves(str(tmp_path / "canary")))
    torch.jit.save(script, path, _extra_files={"operators.txt": ""})
    with pytest.raises(BackendError, match="may only compute"):
        load_graph(path, CPU, optimize=True)
