"""What workers take of a GPU. Where there is none, a worker on the CPU takes of the machine's memory in its place."""

from pathlib import Path

import psutil
import pytest
import torch
from conftest import MakeRecipe
from fakes import TINY_CLASSIFIER

from mar_tools.asking import start_asked_process
from mar_tools.building.timing import PROCESS, TimingJob
from mar_tools.exporting.export import export_model
from mar_tools.images import choose_images
from mar_tools.models.checkpoints import load_checkpoint
from mar_tools.models.recipes import read_recipe
from mar_tools.tuning.deployment import TunedModel
from mar_tools.tuning.gpu_memory import MIB, GpuMemory, measure_gpu_memory, measure_worker
from mar_tools.tuning.probe import Goal
from mar_tools.tuning.space import Settings
from mar_tools.tuning.tuner import Tuner
from vision_serving.errors import ConfigError

DEVICE_MIB = 100_000.0
MEMORY = GpuMemory(free=8000, worker=1000, image=50)


@pytest.mark.parametrize(
    ("workers", "batch_size", "gpus", "fits"),
    [(1, 100, 1, True), (1, 101, 1, False), (4, 10, 1, True), (4, 11, 1, False), (4, 40, 2, True), (5, 40, 2, False)],
)
def test_three_quarters_of_what_is_free_may_be_used(workers: int, batch_size: int, gpus: int, fits: bool) -> None:
    assert (MEMORY.refuse(Settings(workers, 1, batch_size, 2), gpus) == "") is fits


def test_what_does_not_fit_is_not_tried(tmp_path: Path) -> None:
    tuner = Tuner(TunedModel(tmp_path / "m.mar", "m", "1.0", "", gpus=1), [], Goal(100, 1.0), MEMORY)
    attempt = tuner.evaluate(Settings(8, 1, 16, 2), 0.0)
    assert attempt.rate is None
    assert attempt.problem == (
        "not tried: 8 workers on a GPU with batches of 16 take about 14400 MiB, and 6000 may be used"
    )


def measure(make: MakeRecipe, folder: Path, line: str) -> GpuMemory:
    """Measure a worker whose network does what `line` says with each batch, once it is exported."""
    path, exported = make(), folder / "exported"
    guarded = f"import os\n        if os.path.exists({str(exported)!r}):\n            {line}"
    source = TINY_CLASSIFIER.replace("return self.head", f"{guarded}\n        return self.head")
    (path.parent / "tiny.py").write_text(source)
    recipe = read_recipe(path)
    export = export_model(recipe, load_checkpoint(recipe), "eager", "fp32", folder)
    exported.touch()
    with start_asked_process(PROCESS, folder / "worker.log", 120) as worker:

        def read_free() -> float:
            return DEVICE_MIB - float(psutil.Process(worker.pid).memory_info().rss) / MIB

        return measure_worker(worker, TimingJob(folder=export, images=tuple(choose_images(None, 2))), read_free)


def test_a_worker_and_each_image_of_a_batch_are_measured(tiny_recipe: MakeRecipe, tmp_path: Path) -> None:
    found = measure(tiny_recipe, tmp_path, "self.__dict__['held'] = images.new_ones(len(images), 20 * 2**18)")
    assert 20 <= found.image < 40
    assert 50 < found.worker < 2000


def test_a_batch_that_is_halved_does_not_look_small(tiny_recipe: MakeRecipe, tmp_path: Path) -> None:
    held = "self.__dict__['held'] = images.new_ones(len(images), 20 * 2**18)"
    found = measure(tiny_recipe, tmp_path, f"assert len(images) < 8, 'CUDA out of memory'; {held}")
    assert found.image >= 20


def test_a_model_that_predicts_nothing_is_refused(tiny_recipe: MakeRecipe, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the archive cannot be served on the GPU: "):
        measure(tiny_recipe, tmp_path, "raise RuntimeError('CUDA out of memory')")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no NVIDIA GPU")
def test_an_archive_is_measured_on_a_gpu(tiny_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = read_recipe(tiny_recipe())
    export = export_model(recipe, load_checkpoint(recipe), "eager", "fp32", tmp_path, "cuda")
    found = measure_gpu_memory(export, [path.read_bytes() for path in choose_images(None, 2)])
    assert found.free > found.worker > 0
