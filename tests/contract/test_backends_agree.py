"""Every backend against eager on tiny models, at several batch sizes, and with a damaged artifact."""

import shutil
from functools import cache
from pathlib import Path

import pytest
import torch
from conftest import CPU, CPU_BACKENDS, TinyModel
from fakes import generate_image
from torch import Tensor

from mar_tools.verification.observations import load_handler
from vision_serving.backends import load_backend
from vision_serving.backends.base import LoadedBackend
from vision_serving.config import BackendConfig, read_handler_config
from vision_serving.cores import ThreadPlan
from vision_serving.errors import BackendError
from vision_serving.handler import VisionHandler

MODELS = ["tiny_classifier", "tiny_detector"]
THREADS = ThreadPlan(engine=2, decode=1, pin=False)


@cache
def handler(folder: Path) -> VisionHandler:
    """One for all tests of an export: torch_compile traces its graph for seconds whenever it is loaded."""
    return load_handler(folder, THREADS)


def load(folder: Path) -> LoadedBackend:
    return handler(folder).backend


@pytest.fixture(autouse=True)
def threads_of_pytorch(one_thread: None) -> None:
    """The same in every test, whichever of them loads a backend: the process has one number for all of PyTorch's."""
    torch.set_num_threads(THREADS.engine)


def pixels(count: int) -> Tensor:
    return torch.stack([torch.from_numpy(generate_image(seed, (32, 32))) for seed in range(count)])


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> TinyModel:
    found: TinyModel = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_a_backend_gives_what_eager_gives_at_any_batch_size(model: TinyModel, backend: str) -> None:
    reference, candidate = load(model.folders["eager"]), load(model.folders[backend])
    for count in (1, 2, 5, 1):
        expected, found = reference.infer(pixels(count)), candidate.infer(pixels(count))
        assert found.keys() == expected.keys()
        for name in expected:
            # Sums of 200 products in float32, in another order.
            torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_the_outputs_of_a_batch_stay_when_the_next_batch_runs(model: TinyModel, backend: str) -> None:
    candidate = load(model.folders[backend])
    first = candidate.infer(pixels(2))
    before = {name: values.clone() for name, values in first.items()}
    candidate.infer(255 - pixels(2))
    assert all(torch.equal(first[name], before[name]) for name in before)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_a_backend_takes_pixels_that_are_not_contiguous(model: TinyModel, backend: str) -> None:
    candidate = load(model.folders[backend])
    planes = pixels(2).permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    assert not planes.is_contiguous()
    expected, found = candidate.infer(pixels(2)), candidate.infer(planes)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_a_backend_leaves_its_input_alone(model: TinyModel, backend: str) -> None:
    given = pixels(2)
    load(model.folders[backend]).infer(given)
    assert torch.equal(given, pixels(2))


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_predictions_of_a_batch_are_those_of_its_images_alone(model: TinyModel, backend: str) -> None:
    loaded = handler(model.folders[backend])
    images = [generate_image(seed, (40 + seed, 50)) for seed in range(3)]
    together = loaded.inference(loaded.preprocess(images))
    for index, image in enumerate(images):
        alone = loaded.inference(loaded.preprocess([image]))
        for name in alone:
            torch.testing.assert_close(together[name][index], alone[name][0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_a_backend_refuses_a_damaged_artifact(tiny_classifier: TinyModel, backend: str, tmp_path: Path) -> None:
    export = shutil.copytree(tiny_classifier.folders[backend], tmp_path / "export")
    artifact = export / read_handler_config(export / "model-config.yaml").artifact
    damaged = [path for path in export.rglob("*") if path.is_file() and artifact in (path, *path.parents)]
    for path in damaged:
        path.write_bytes(b"damaged")
    assert damaged
    with pytest.raises(BackendError):
        load_backend(backend, artifact, BackendConfig(), CPU)
