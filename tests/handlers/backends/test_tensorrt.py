"""TensorRT: what can be told without a GPU, and on one the whole way. It needs requirements/tensorrt.txt."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conftest import CPU, MakeRecipe, TinyModel
from torch import Tensor

from mar_tools.exporting.export import export_model
from mar_tools.exporting.export import new_job as new_export_job
from mar_tools.exporting.exporters import find_candidates, onnxruntime
from mar_tools.exporting.exporters.base import ExportJob
from mar_tools.exporting.onnx_export import export_onnx
from mar_tools.models.checkpoints import load_checkpoint
from mar_tools.models.recipes import Recipe, read_recipe
from vision_serving.backends import load_backend
from vision_serving.config import BackendConfig, Precision
from vision_serving.errors import BackendError

HAS_GPU = torch.cuda.is_available()
needs_package = pytest.mark.skipif(not find_spec("tensorrt"), reason="pip install -r requirements/tensorrt.txt")
needs_gpu = pytest.mark.skipif(not (HAS_GPU and find_spec("tensorrt")), reason="needs an NVIDIA GPU and tensorrt")
GPU = torch.device("cuda:0")


def new_job(recipe: Recipe, precision: Precision = "fp32") -> ExportJob:
    return new_export_job(recipe, load_checkpoint(recipe), "tensorrt", precision, "cpu")


def test_it_is_no_choice_for_a_cpu() -> None:
    with pytest.raises(BackendError, match="backend 'tensorrt' does not run on cpu"):
        find_candidates("tensorrt", "auto", "cpu")


@pytest.mark.skipif(bool(find_spec("tensorrt")), reason="tensorrt is installed")
def test_a_missing_package_is_named(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"'tensorrt': pip install .* -r requirements/tensorrt\.txt"):
        load_backend("tensorrt", tmp_path, BackendConfig(), GPU)


def test_int8_for_tensorrt_has_no_zero_points_and_float_biases(tiny_recipe: MakeRecipe, tmp_path: Path) -> None:
    job = new_job(read_recipe(tiny_recipe(calibration={"count": 4})), "int8")
    export_onnx(job, tmp_path / "float.onnx")
    report = onnxruntime.quantize_file(job, tmp_path / "float.onnx", tmp_path / "model.onnx", symmetric=True)
    assert report["scheme"] == "static"
    graph = onnx.load(tmp_path / "model.onnx").graph
    constants = {values.name: onnx.numpy_helper.to_array(values) for values in graph.initializer}
    points = [constants[node.input[2]] for node in graph.node if "quantize" in node.op_type.lower()]
    assert points
    assert all(point.dtype == np.int8 and not point.any() for point in points)


@needs_package
@pytest.mark.skipif(HAS_GPU, reason="this machine has a GPU")
def test_without_a_gpu_export_and_load_say_so(tiny_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = read_recipe(tiny_recipe())
    with pytest.raises(BackendError, match="tensorrt needs an NVIDIA GPU here"):
        export_model(recipe, load_checkpoint(recipe), "tensorrt", "fp32", tmp_path, "cuda")
    with pytest.raises(BackendError, match="tensorrt needs an NVIDIA GPU here"):
        load_backend("tensorrt", tmp_path, BackendConfig(), GPU)


@needs_package
@pytest.mark.parametrize(
    ("resize", "shapes"),
    [
        ({"mode": "exact", "size": [32, 48]}, [(1, 32, 48, 3), (8, 32, 48, 3), (32, 32, 48, 3)]),
        ({"mode": "bounded_edges", "size": 64, "max_size": 96}, [(1, 32, 32, 3), (1, 64, 96, 3), (4, 96, 96, 3)]),
    ],
    ids=["one size", "any size"],
)
def test_an_engine_is_built_for_the_batches_that_a_worker_may_see(
    tiny_recipe: MakeRecipe, resize: dict[str, object], shapes: list[tuple[int, ...]]
) -> None:
    from mar_tools.exporting.exporters.tensorrt import profile_shapes

    job = new_job(read_recipe(tiny_recipe(preprocessing={"resize": resize})))
    assert list(profile_shapes(job)) == shapes


@needs_package
def test_the_first_step_of_the_network_makes_pixels_float(tiny_recipe: MakeRecipe, tmp_path: Path) -> None:
    from mar_tools.exporting.exporters.tensorrt import write_onnx

    write_onnx(new_job(read_recipe(tiny_recipe())), tmp_path / "model.onnx")
    nodes = onnx.load(tmp_path / "model.onnx").graph.node
    assert [node.op_type for node in nodes if "pixels" in node.input] == ["Cast"]


def pixels(count: int) -> Tensor:
    return torch.randint(0, 256, (count, 32, 32, 3), dtype=torch.uint8)


BuildTiny = Callable[[TinyModel, Precision], Path]


@pytest.fixture
def build_tiny(tmp_path: Path) -> BuildTiny:
    """The engine of a tiny model."""

    def build(model: TinyModel, precision: Precision) -> Path:
        return export_model(model.recipe, model.checkpoint, "tensorrt", precision, tmp_path, "cuda") / "model.engine"

    return build


# Sums of 200 products, in fp32 in another order, with 10 bits of mantissa, with 8; int8 with steps of 1/256 of a range.
TOLERANCES: dict[Precision, float] = {"fp32": 1e-4, "fp16": 2e-2, "bf16": 1e-1, "int8": 2e-1}


@needs_gpu
@pytest.mark.parametrize("precision", TOLERANCES)
def test_an_engine_gives_what_eager_gives_at_any_batch_size(
    tiny_classifier: TinyModel, build_tiny: BuildTiny, precision: Precision
) -> None:
    reference = load_backend("eager", tiny_classifier.folders["eager"] / "model", BackendConfig(), CPU)
    backend = load_backend("tensorrt", build_tiny(tiny_classifier, precision), BackendConfig(), GPU)
    for count in (1, 2, 5, 33, 70, 1):
        batch = pixels(count)
        found, expected = backend.infer(batch)["logits"], reference.infer(batch)["logits"]
        torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCES[precision])


@needs_gpu
def test_an_engine_of_a_detector_gives_what_eager_gives(tiny_detector: TinyModel, build_tiny: BuildTiny) -> None:
    reference = load_backend("eager", tiny_detector.folders["eager"] / "model", BackendConfig(), CPU)
    backend = load_backend("tensorrt", build_tiny(tiny_detector, "fp32"), BackendConfig(), GPU)
    batch = pixels(3)
    found, expected = backend.infer(batch), reference.infer(batch)
    for name in ("boxes", "scores"):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-4)


@needs_gpu
@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('"tensorrt":"', '"tensorrt":"1.', "the engine was built with TensorRT 1"),
        ('"compute_capability":[', '"compute_capability":[1', "build the model on this kind of machine"),
        ("{", "", r"no readable model\.json"),
    ],
    ids=["version", "GPU", "damaged"],
)
def test_an_engine_of_another_machine_is_refused(
    tiny_classifier: TinyModel, build_tiny: BuildTiny, before: str, after: str, message: str
) -> None:
    engine = build_tiny(tiny_classifier, "fp32")
    built_for = engine.with_suffix(".json")
    built_for.write_text(built_for.read_text().replace(before, after))
    with pytest.raises(BackendError, match=message):
        load_backend("tensorrt", engine, BackendConfig(), GPU)


@needs_gpu
def test_a_damaged_engine_is_refused(tiny_classifier: TinyModel, build_tiny: BuildTiny) -> None:
    engine = build_tiny(tiny_classifier, "fp32")
    engine.write_bytes(engine.read_bytes()[:1000])
    with pytest.raises(BackendError, match=r"TensorRT cannot load model\.engine"):
        load_backend("tensorrt", engine, BackendConfig(), GPU)
