"""Fixtures: handlers with colour backends, and tiny models exported once for all tests."""

import signal
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from fakes import FAKE_BACKENDS, TINY_CLASSIFIER, TINY_DETECTOR, write_model_dir

from mar_tools.checkpoints import Checkpoint, load_checkpoint
from mar_tools.conventions import HANDLERS
from mar_tools.exporters import CANDIDATES
from mar_tools.exports import export_model
from mar_tools.recipes import Recipe, read_recipe
from mar_tools.verification import verify_export
from vision_serving.backends import BACKENDS
from vision_serving.handler import VisionHandler
from vision_serving.options import Task

CPU = torch.device("cpu")
INSTALLED = [
    name
    for name in BACKENDS
    if name in {backend for backend, _ in CANDIDATES["cpu"]} and (name != "tvm" or find_spec("tvm"))
]
TVM_IS_MISSING = pytest.mark.skipif("tvm" not in INSTALLED, reason="pip install -r requirements-tvm.txt")
CPU_BACKENDS = [*(name for name in INSTALLED if name != "tvm"), pytest.param("tvm", marks=TVM_IS_MISSING)]
MakeHandler = Callable[..., VisionHandler]
MakeRecipe = Callable[..., Path]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Small tensors gain nothing from threads, and on a busy machine threads that wait for each other cost tenfold."""
    torch.set_num_threads(1)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt, also in a process that was started in the background and ignores it."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


@pytest.fixture
def colour_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, target in FAKE_BACKENDS.items():
        monkeypatch.setitem(BACKENDS, name, target)


@pytest.fixture
def make_handler(tmp_path: Path, colour_backends: None) -> MakeHandler:
    """A loaded handler of a task with a colour backend; keywords go into its `handler:` section."""

    def make(task: Task, **section: Any) -> VisionHandler:
        handler = HANDLERS[task]()
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


class TinyModel:
    """A tiny model with its recipe, checkpoint, and verified exports for every backend."""

    def __init__(self, folder: Path, task: str) -> None:
        self.task = task
        self.recipe: Recipe = read_recipe(write_tiny_recipe(folder / "recipe", task))
        self.checkpoint: Checkpoint = load_checkpoint(self.recipe)
        self.folders = {
            name: export_model(self.recipe, self.checkpoint, name, "fp32", folder / "exports") for name in INSTALLED
        }
        self.reports = {name: verify_export(path) for name, path in self.folders.items()}


@pytest.fixture(scope="session")
def tiny_classifier(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return TinyModel(tmp_path_factory.mktemp("tiny_classifier"), "classification")


@pytest.fixture(scope="session")
def tiny_detector(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return TinyModel(tmp_path_factory.mktemp("tiny_detector"), "detection")
