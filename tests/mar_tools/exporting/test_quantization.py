"""int8 from networks that were trained with fake quantisation, and the layers that stay in float."""

from pathlib import Path

import onnx
import openvino  # type: ignore[import-untyped]
import pytest
import torch
import yaml
from conftest import MakeRecipe
from torch import Tensor, nn

from mar_tools.exporting.calibration import Calibration, float_layer_choices, quantize_with_float_layers
from mar_tools.exporting.export import export_model
from mar_tools.exporting.export_folders import read_manifest
from mar_tools.exporting.exporters.aotinductor import quantize_program
from mar_tools.exporting.signal_to_noise import signal_to_noise_db
from mar_tools.exporting.torch_programs import export_program
from mar_tools.models.checkpoints import load_checkpoint
from mar_tools.models.recipes import QuantizationRecipe, Recipe, read_recipe
from mar_tools.verification.gate import verify_export
from vision_serving.config import ColourConfig, PreprocessingConfig, ResizeConfig
from vision_serving.errors import BackendError, ConfigError

TRAINED_WITH_FAKE_QUANTISATION = '''
import torch
from torch import nn
from torch.nn import functional


class QuantizedConv(nn.Module):
    """A convolution as quantisation-aware training leaves it: scales are part of the checkpoint."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3) * 0.1)
        self.register_buffer("weight_scale", torch.full((outputs,), 0.4 / 128))
        self.register_buffer("zeros", torch.zeros(outputs, dtype=torch.int32))
        self.activation_scale = 6 / 255

    def forward(self, x):
        x = torch.fake_quantize_per_tensor_affine(x, self.activation_scale, 128, 0, 255)
        w = torch.fake_quantize_per_channel_affine(self.weight, self.weight_scale, self.zeros, 0, -128, 127)
        return functional.conv2d(x, w, stride=2)


class QatClassifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(QuantizedConv(3, 16, 2), nn.ReLU(), QuantizedConv(16, 32, 2), nn.ReLU())
        self.head = nn.Linear(32, 3)

    def forward(self, x):
        return self.head(self.layers(x).mean((2, 3)))
'''
PREPROCESSING = PreprocessingConfig(resize=ResizeConfig(mode="exact", size=(64, 64)))


@pytest.fixture
def quantized_recipe(tmp_path: Path) -> Recipe:
    document = {
        "name": "qat",
        "task": "classification",
        "model": {"source": "python", "file": "qat.py", "class": "QatClassifier", "weights": "random"},
        "labels": "labels.json",
        "preprocessing": {"resize": {"mode": "exact", "size": [64, 64]}},
        "quantization": {"scheme": "checkpoint"},
        "verification": {"count": 4},
    }
    (tmp_path / "qat.py").write_text(TRAINED_WITH_FAKE_QUANTISATION)
    (tmp_path / "labels.json").write_text('["cat", "dog", "bird"]')
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(document))
    return read_recipe(tmp_path / "recipe.yaml")


def export_int8(recipe: Recipe, backend: str, exports: Path) -> Path:
    checkpoint = load_checkpoint(recipe)
    export_model(recipe, checkpoint, "eager", "fp32", exports)
    return export_model(recipe, checkpoint, backend, "int8", exports)


def test_openvino_computes_in_int8_with_the_scales_of_the_training(quantized_recipe: Recipe, tmp_path: Path) -> None:
    folder = export_int8(quantized_recipe, "openvino", tmp_path)
    report = verify_export(folder)
    assert report["passed"], report["failures"]
    assert report["measured"]["snr_db"] > 40  # the reference rounds alike
    assert report["quantization"] == {"scheme": "checkpoint"}
    compiled = openvino.Core().compile_model(folder / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    layers = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    convolutions = [layer for layer in layers if layer["layerType"].astype(str) == "Convolution"]
    # CPUs differ in which of the two they take.
    assert {layer["runtimePrecision"].astype(str) for layer in convolutions} in ({"u8"}, {"i8"})


def test_onnxruntime_gets_the_scales_of_the_training(quantized_recipe: Recipe, tmp_path: Path) -> None:
    folder = export_int8(quantized_recipe, "onnxruntime", tmp_path)
    report = verify_export(folder)
    assert report["passed"], report["failures"]
    assert report["measured"]["snr_db"] > 40
    assert [node.op_type for node in onnx.load(folder / "model.onnx").graph.node].count("QuantizeLinear") >= 2


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_a_network_without_fake_quantisation_is_not_called_int8(
    tiny_recipe: MakeRecipe, tmp_path: Path, backend: str
) -> None:
    recipe = read_recipe(tiny_recipe(quantization={"scheme": "checkpoint"}))
    with pytest.raises(BackendError, match="needs a network with fake quantisation"):
        export_int8(recipe, backend, tmp_path)


@pytest.mark.parametrize(
    ("layers", "choices"),
    [
        ([], [[]]),
        (["a"], [[]]),
        (["a", "b"], [[], ["b"]]),
        (list("abcdefgh"), [[], ["h"], ["a", "h"], ["a", "b", "g", "h"]]),
    ],
)
def test_layers_at_both_ends_stay_in_float_more_of_them_each_time(layers: list[str], choices: list[list[str]]) -> None:
    assert list(float_layer_choices(layers)) == choices


@pytest.mark.parametrize(
    ("snr_db", "kept", "tried"),
    [({0: 30.0}, [], 1), ({0: 5.0, 1: 25.0}, ["h"], 2), ({0: 5.0, 1: 12.0, 2: 9.0, 4: 11.0}, ["h"], 4)],
    ids=["all in int8", "the last one is enough", "the best where none is enough"],
)
def test_as_few_layers_as_needed_stay_in_float(snr_db: dict[int, float], kept: list[str], tried: int) -> None:
    calibration = Calibration(None, 1, PREPROCESSING, QuantizationRecipe(), ColourConfig())
    models: list[list[str]] = []

    def quantize(float_layers: list[str]) -> list[str]:
        models.append(float_layers)
        return float_layers

    found = quantize_with_float_layers(calibration, list("abcdefgh"), quantize, lambda model: snr_db[len(model)])
    assert found == (kept, kept)
    assert len(models) == tried


def test_layers_that_the_recipe_names_stay_in_float(tmp_path: Path) -> None:
    calibration = Calibration(None, 1, PREPROCESSING, QuantizationRecipe(float_layers=("head",)), ColourConfig())
    assert quantize_with_float_layers(calibration, ["a", "head"], lambda kept: kept, lambda _: 0.0)[1] == ["head"]


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime", "aotinductor"])
def test_a_layer_that_there_is_not_is_refused(tiny_recipe: MakeRecipe, tmp_path: Path, backend: str) -> None:
    recipe = read_recipe(tiny_recipe(quantization={"float_layers": ["haed"]}, calibration={"count": 2}))
    with pytest.raises(ConfigError, match="no layer 'haed' to keep in float; this backend calls its layers"):
        export_int8(recipe, backend, tmp_path)


def test_the_best_attempt_of_onnxruntime_is_the_one_that_is_kept(
    tiny_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snr_db = iter([19.0, 5.0])  # nothing in float, then the last layer
    monkeypatch.setattr("mar_tools.exporting.exporters.onnxruntime.outputs_snr_db", lambda *_: next(snr_db))
    recipe = read_recipe(tiny_recipe(quantization={"scheme": "static"}, calibration={"count": 2}))
    folder = export_int8(recipe, "onnxruntime", tmp_path)
    nodes = onnx.load(folder / "model.onnx").graph.node
    of_head = next(node for node in nodes if node.op_type in ("Gemm", "MatMul"))
    producers = {name: node.op_type for node in nodes for name in node.output}
    assert read_manifest(folder).quantization["float_layers"] == []
    assert producers[of_head.input[0]] == "DequantizeLinear"


class SharedHead(nn.Module):
    """As of a detector: the same layers on feature maps of two sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        nn.init.constant_(self.head[1].get_parameter("bias"), 1.0)

    def forward(self, pixels: Tensor) -> Tensor:
        x = pixels.permute(0, 3, 1, 2) / 255
        return torch.cat([self.head(x).mean((2, 3)), self.head(x[..., ::2, ::2]).mean((2, 3))], 1)


def test_a_head_that_is_run_twice_keeps_the_bias_of_its_batch_norm() -> None:
    torch.manual_seed(0)
    network, pixels = SharedHead().eval(), torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    program = export_program(network, pixels, strict=True)
    quantized = quantize_program(program, [pixels], [])
    with torch.no_grad():
        assert signal_to_noise_db(network(pixels), quantized(pixels)) > 30
