"""Fixtures: handlers with colour backends, commands in this process, and tiny models exported once for all tests."""

import gc
import os
import pkgutil
import re
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

# Before PyTorch is loaded. Threads that wait otherwise spin, and with two processes on two cores cost tenfold.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Vector instructions are not tried out by compiling a program for each, nor the code that calls kernels optimised.
os.environ.setdefault("TORCHINDUCTOR_VEC_ISA_OK", "1")
os.environ.setdefault("AOT_INDUCTOR_COMPILE_WRAPPER_OPT_LEVEL", "O0")

import pytest
import torch
import yaml
from fakes import FAKE_BACKENDS, TINY_CLASSIFIER, TINY_DETECTOR, write_model_dir
from filelock import FileLock
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from mar_tools.building.packing import build_archive
from mar_tools.command_line import HANDLERS as HANDLERS_FOLDER
from mar_tools.command_line import ROOT
from mar_tools.exporting.export import export_model
from mar_tools.exporting.export_folders import export_folder
from mar_tools.exporting.exporters import list_candidates
from mar_tools.models.checkpoints import Checkpoint, load_checkpoint
from mar_tools.models.handlers_by_task import new_handler
from mar_tools.models.recipes import Recipe, read_recipe
from mar_tools.verification.gate import read_report, verify_export
from vision_serving.backends import BACKENDS
from vision_serving.options import Task
from vision_serving.source_constants import read_constant
from vision_serving.worker.service import TorchServeHandler

CPU = torch.device("cpu")


def is_installed(backend: str) -> bool:
    """Look for the packages that a backend's file imports, without importing them."""
    source = (HANDLERS_FOLDER / "vision_serving" / "backends" / f"{backend}.py").read_text(encoding="utf-8")
    names = [found.group(1) for found in re.finditer(r"^(?:import|from) (\w+)", source, re.MULTILINE)]
    return all(find_spec(name) is not None for name in names)


def is_required(backend: str) -> bool:
    """Return whether requirements/dev.txt brings what a backend needs: then it is tested, or its tests fail."""
    extra = read_constant(HANDLERS_FOLDER / "vision_serving" / "backends" / f"{backend}.py", "REQUIREMENTS")
    return extra is None or f"-r {extra}.txt" in (ROOT / "requirements" / "dev.txt").read_text(encoding="utf-8")


ON_CPU = {backend for backend, _ in list_candidates("cpu")}
INSTALLED = [name for name in BACKENDS if name in ON_CPU and is_installed(name)]
NOT_ASKED_FOR = [name for name in ON_CPU - set(INSTALLED) if not is_required(name)]
CPU_BACKENDS = [
    pytest.param(name, marks=pytest.mark.skip(reason=f"{name} is not installed")) if name in NOT_ASKED_FOR else name
    for name in BACKENDS
    if name in ON_CPU
]
# Contracts of many models export by these alone. The others compile for long, and need images of one size.
QUICK_BACKENDS = [name for name in INSTALLED if name not in ("eager", "torch_compile", "aotinductor", "tvm")]
MakeHandler = Callable[..., TorchServeHandler]
MakeRecipe = Callable[..., Path]
RunHere = Callable[..., "subprocess.CompletedProcess[str]"]
OncePerRun = Callable[[str, Callable[[], object]], None]
Made = TypeVar("Made")
TESTS = Path(__file__).resolve().parent
# So that two processes end at about the same time.
SLOW_FIRST = (
    "mar_tools/cluster",
    "lab/monitoring",
    "lab/reliability",
    "lab/hostile",
    "e2e/operations",
    "e2e",
    "e2e/front",
    "e2e/monitoring",
    "contract",
)
FOLDERS_OF_LAB = ("lab",)
FOLDERS_OF_RAY = ("mar_tools/cluster", "mar_tools/ray_serving")
# They import what requirements/ray.txt brings, and `bash scripts/test.sh` does not run them.
collect_ignore_glob = [] if find_spec("ray") else ["mar_tools/ray_serving/test_*.py"]
# Half a minute of compiling each: in the product's run, other models and precisions guard the same backend. And ends of
# a process that are rows like the others, and servers of their own for what another test shows once.
OF_LAB = (
    "_killed_training_goes_on_to_the_answer_of_an_unbroken_one",
    "[tiny_detector-torch_compile]",
    "[tiny_detector-aotinductor]",
    "[cpu-torch_compile-bf16]",
    "[cpu-aotinductor-bf16]",
    "[cpu-aotinductor-int8]",
    "_take_the_new_backend_as_it_is",
    "_tries_the_new_backend_verifies_it_and_its_archive_predicts",
    "_and_fails_on_noise[detection]",
    "_and_fails_on_noise[classification]",
    "_by_two_commands[packed.tar.gz-python]",
    "_by_two_commands[packed_program.tar.gz-torchscript]",
    "_by_two_commands[folder-python]",
    "_takes_no_more_memory_than_the_documents_say",
    "_is_tuned_with_evidence_and_the_winner_is_written",
    "_checks_every_answer_and_tells_what_it_cost",
    "_is_the_reason_of_its_row[segmentation fault]",
    "_is_the_reason_of_its_row[killed]",
    "_is_the_reason_of_its_row[silent exit]",
    "_costs_the_metrics_alone_until_it_is_free",
    "_the_report_of_the_model_opens_from_its_card",
    "_an_archive_of_others_has_a_reason_instead",
    "_the_name_of_a_file_is_no_code[Python]",
    "_the_name_of_a_file_is_no_code[JavaScript]",
    "_make_it_say_that_some_were_cut_off",
    "_a_second_signal_stops_at_once",
    "_a_signal_during_the_start_ends_it",
    "_the_units_write_into_one_folder_alone",
)
EXAMPLES = float(os.environ.get("EXAMPLES", "0.25"))  # `bash scripts/test.sh --lab` sets 1


def examples(count: int) -> int:
    """Return how many examples hypothesis generates: a quarter of `count`, or as many times it as EXAMPLES says."""
    return max(1, round(count * EXAMPLES))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "lab: guards the laboratory, or once more what a quicker test of the product guards"
    )
    config.addinivalue_line("markers", "ray: needs requirements/ray.txt, and starts clusters")


def pytest_collectstart(collector: pytest.Collector) -> None:
    """Networks that a file makes as it is imported have the same weights in every run: by chance, some look misread."""
    if isinstance(collector, pytest.Module):
        torch.manual_seed(0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the laboratory's tests and those of Ray, and sort slow folders to the front."""
    folders = {item.path: item.path.parent.relative_to(TESTS).as_posix() for item in items}
    order = [*SLOW_FIRST, *dict.fromkeys(folders.values())]
    items.sort(key=lambda item: order.index(folders[item.path]))
    for item in items:
        if folders[item.path].startswith(FOLDERS_OF_RAY):
            item.add_marker(pytest.mark.ray)
        elif folders[item.path].startswith(FOLDERS_OF_LAB) or item.name.endswith(OF_LAB):
            item.add_marker(pytest.mark.lab)


class OneServerAFolder(LoadScopeScheduling):  # type: ignore[misc]
    """Keeps the tests of a file in one process, and those of a folder of e2e, which share its servers."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return path.rpartition("/")[0] if path.startswith("tests/e2e/") else path


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> OneServerAFolder:
    return OneServerAFolder(config, log)


def pytest_collection_finish() -> None:
    """Keep what was imported out of every later collection of garbage: a million objects, a second when it is busy."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def odd_archive(run_folder: Path, once_per_run: "OncePerRun") -> Path:
    from offline_runs import build_odd_archive

    once_per_run("odd", lambda: build_odd_archive(run_folder / "odd"))
    return run_folder / "odd" / "odd.mar"


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """While it is there, the black picture stays in `odd_archive`'s model. What happens meanwhile is inside a chunk."""
    gate = tmp_path / "gate"
    gate.touch()
    monkeypatch.setenv("TEST_GATE", str(gate))
    yield gate
    gate.unlink(missing_ok=True)


@pytest.fixture(autouse=True)
def same_random_weights() -> None:
    """Networks that a test makes have the same weights in every run, whatever ran before."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Small tensors gain nothing from threads, and on a busy machine threads that wait for each other cost tenfold."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def operators_of_exporters() -> Iterator[None]:
    """Listed once. PyTorch lists those of ONNX, and its own, at every export, for most of its time."""
    registry = "torch.onnx._internal.exporter._registration.ONNXRegistry.from_torchlib"
    collected = "torch.export.exported_program._collect_all_valid_cia_ops"
    collect_again = pkgutil.resolve_name(collected)
    collect = cache(lambda known: collect_again())

    def collect_once() -> Any:
        namespaces = (getattr(torch.ops, name) for name in torch.ops._dir)
        return collect(tuple(len(namespace._dir) for namespace in namespaces))  # again where a library brought some

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, staticmethod(cache(pkgutil.resolve_name(registry))))
        patch.setattr(collected, collect_once)
        patch.setattr("torch.export.decomp_utils._collect_all_valid_cia_ops", collect_once)
        yield


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt, also in a process that was started in the background and ignores it."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


@pytest.fixture
def run_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[RunHere]:
    """`run_here("verify_model.py", ...)`: a command of ours in this process. A new one imports PyTorch for seconds."""
    former = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}  # which commands set

    def run(script: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
        command = [script, *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ROOT / "scripts" / script), run_name="__main__")
        said, status = capsys.readouterr(), ended.value.code
        assert isinstance(status, int)
        return subprocess.CompletedProcess(command, status, said.out, said.err)

    yield run
    for number, handler in former.items():
        signal.signal(number, handler)


@pytest.fixture
def colour_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, target in FAKE_BACKENDS.items():
        monkeypatch.setitem(BACKENDS, name, target)


@pytest.fixture
def make_handler(tmp_path: Path, colour_backends: None) -> MakeHandler:
    """A loaded handler of a task with a colour backend; keywords go into its `handler:` section."""

    def make(task: Task, **section: Any) -> TorchServeHandler:
        handler = new_handler(task)
        handler.load(write_model_dir(tmp_path / task, task, **section), CPU)
        return handler

    return make


def write_tiny_recipe(folder: Path, task: str = "classification", **changes: Any) -> Path:
    """A `python` recipe of a tiny network with random weights, its file and labels beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tiny.py").write_text(TINY_CLASSIFIER if task == "classification" else TINY_DETECTOR)
    (folder / "labels.json").write_text('["cat", "dog", "bird"]')
    class_name = "TinyClassifier" if task == "classification" else "TinyDetector"
    recipe = {
        "name": f"tiny_{task}",
        "task": task,
        "model": {"source": "python", "file": "tiny.py", "class": class_name, "weights": "random"},
        "labels": "labels.json",
        "preprocessing": {"resize": {"mode": "exact", "size": [32, 32]}},
        "verification": {"count": 4},
        **changes,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


@pytest.fixture
def tiny_recipe(tmp_path: Path) -> MakeRecipe:
    """Writes a tiny recipe under tmp_path: `tiny_recipe(task, **changes)`."""
    return lambda task="classification", **changes: write_tiny_recipe(tmp_path / "recipe", task, **changes)


class MadeWhenAsked(dict[str, Made]):
    """Values by name, each made when it is first asked for."""

    def __init__(self, make: Callable[[str], Made]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, name: str) -> Made:
        self[name] = self._make(name)
        return self[name]


class TinyModel:
    """A tiny model with its recipe and checkpoint; by backend, verified exports in fp32 and their reports."""

    def __init__(self, folder: Path, task: str, once: OncePerRun) -> None:
        self.task = task
        once(folder.name, lambda: write_tiny_recipe(folder / "recipe", task))
        self.recipe: Recipe = read_recipe(folder / "recipe" / "recipe.yaml")
        torch.set_num_threads(1)  # sums in more have other roundings, and every process is to make the same checkpoint
        self.checkpoint: Checkpoint = load_checkpoint(self.recipe)
        self.folders = MadeWhenAsked(lambda backend: self._export(backend, folder / "exports", once))
        self.reports = MadeWhenAsked(lambda backend: read_report(self.folders[backend]))

    def _export(self, backend: str, exports: Path, once: OncePerRun) -> Path:
        if backend != "eager":
            assert self.folders["eager"], "which the others are verified against"
        once(f"{self.recipe.name}-{backend}", lambda: self._export_and_verify(backend, exports))
        return export_folder(exports, self.recipe, backend, "fp32")

    def _export_and_verify(self, backend: str, exports: Path) -> None:
        verify_export(export_model(self.recipe, self.checkpoint, backend, "fp32", exports))


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this run, the same in every process of pytest-xdist."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def once_per_run(run_folder: Path) -> OncePerRun:
    """`once_per_run(name, make)`: does it in the first process of pytest-xdist that comes; the others wait for it."""

    def once(name: str, make: Callable[[], object]) -> None:
        done = run_folder / f"{name}.done"
        with FileLock(done.with_suffix(".lock")):
            if not done.exists():
                make()
                done.touch()

    return once


@pytest.fixture(scope="session")
def tiny_classifier(run_folder: Path, once_per_run: OncePerRun) -> TinyModel:
    return TinyModel(run_folder / "tiny_classifier", "classification", once_per_run)


@pytest.fixture(scope="session")
def tiny_detector(run_folder: Path, once_per_run: OncePerRun) -> TinyModel:
    return TinyModel(run_folder / "tiny_detector", "detection", once_per_run)


@pytest.fixture(scope="session")
def archive(tiny_classifier: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the tiny classifier on OpenVINO, alone in its model store. No test changes it."""
    return build_archive(tiny_classifier.folders["openvino"], ROOT / "handlers", tmp_path_factory.mktemp("model_store"))


def build_without_timing(recipe_path: Path, backend: str, folder: Path) -> Path:
    """Take the steps of build_model.py for one candidate in fp32, which every CPU can run; return its archive."""
    recipe = read_recipe(recipe_path)
    checkpoint = load_checkpoint(recipe)
    for name in dict.fromkeys(("eager", backend)):  # the first is what the others are compared with
        export = export_model(recipe, checkpoint, name, "fp32", folder / "exports")
    report = verify_export(export)
    assert report["passed"], report["failures"]
    return build_archive(export, ROOT / "handlers", folder)


@pytest.fixture(scope="session")
def archives(run_folder: Path, once_per_run: OncePerRun) -> Path:
    """A model store with both examples on OpenVINO."""
    folder = run_folder / "archives"
    for example in ("digits_classification", "digits_detection"):
        recipe = ROOT / "examples" / example / "recipe.yaml"
        once_per_run(example, partial(build_without_timing, recipe, "openvino", folder))
    return folder
