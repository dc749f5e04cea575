"""A wrapped ONNX model against the raw file in onnxruntime."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from mar_tools.exporting.onnx_files import dims_of
from mar_tools.exporting.onnx_models import wrap_onnx
from mar_tools.models.example_pixels import load_pixels
from vision_serving.config import PreprocessingConfig, ResizeConfig
from vision_serving.errors import ConfigError
from vision_serving.graphs.construction import build_graph
from vision_serving.graphs.outputs import OutputFormat
from vision_serving.graphs.pixels import Normalize
from vision_serving.options import Task

HEIGHT, WIDTH = 24, 32
EXACT = PreprocessingConfig(resize=ResizeConfig(mode="exact", size=(HEIGHT, WIDTH)), std=(0.2, 0.3, 0.4))
ANY_SIZE = PreprocessingConfig(resize=ResizeConfig(mode="bounded_edges", size=24, max_size=48))
Array = np.ndarray[Any, Any]


class Classifier(nn.Module):
    def __init__(self, dtype: torch.dtype = torch.float32, channels_last: bool = False) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.BatchNorm2d(6), nn.ReLU())
        self.head = nn.Linear(6, 5)
        self.channels_last = channels_last
        self.to(dtype)

    def forward(self, images: Tensor) -> Tensor:
        if self.channels_last:
            images = images.permute(0, 3, 1, 2)
        logits: Tensor = self.head(self.layers(images).mean((2, 3)))
        return logits


class Detector(nn.Module):
    """Values in the form of `output_format`, from a grid of cells."""

    def __init__(self, output: OutputFormat) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 4 + 1 + 5, 8, 8)
        self.output = output

    def forward(self, images: Tensor) -> Any:
        rows = self.head(images).flatten(2).transpose(1, 2)
        boxes, scores = rows[..., :4].sigmoid(), rows[..., 4:]
        if self.output.format == "detr":
            return scores * 3, boxes
        if self.output.format == "yolo":
            rows = torch.cat((boxes, scores if self.output.objectness else scores[..., 1:]), dim=-1)
            return (images.mean((2, 3)), rows.transpose(1, 2) if self.output.layout == "columns" else rows)
        return boxes * 20, scores.sigmoid()


def save_onnx(path: Path, network: nn.Module, names: list[str], dynamic: bool = True, **options: Any) -> Path:
    """As a user would export it, for images of HEIGHT x WIDTH."""
    torch.manual_seed(0)
    for values in network.state_dict().values():
        if values.is_floating_point():
            values.copy_(torch.randn(values.shape).abs() if values.dim() == 1 else torch.randn(values.shape) * 0.2)
    dtype = next(network.parameters()).dtype
    shape = (2, HEIGHT, WIDTH, 3) if getattr(network, "channels_last", False) else (2, 3, HEIGHT, WIDTH)
    batch = {0: torch.export.Dim.DYNAMIC} if dynamic else {}
    torch.onnx.export(
        network.eval(),
        (torch.randn(shape, dtype=dtype),),
        str(path),
        input_names=["input"],
        output_names=names,
        dynamic_shapes=options.pop("dynamic_shapes", (batch,)),
        external_data=False,
        verbose=False,
        **options,
    )
    return path


def run(model: Path | onnx.ModelProto, feed: Array, name: str) -> dict[str, Array]:
    content = model.read_bytes() if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {name: feed}), strict=True))


def raw_and_wrapped(
    path: Path, task: Task, output: OutputFormat, count: int = 3, preprocessing: PreprocessingConfig = EXACT
) -> tuple[dict[str, Array], dict[str, Array], onnx.ModelProto]:
    """What the file gives to images that we normalise here, and what the wrapped model gives to their pixels."""
    wrapped = wrap_onnx(path, preprocessing, task, output)
    pixels = load_pixels(count, preprocessing)
    images = Normalize(preprocessing)(pixels)
    [image] = onnx.load(path).graph.input
    if image.type.tensor_type.shape.dim[3].dim_value == 3:
        images = images.permute(0, 2, 3, 1)
    half = image.type.tensor_type.elem_type == TensorProto.FLOAT16
    feed = images.numpy().astype(np.float16 if half else np.float32)
    return run(path, feed, image.name), run(wrapped, pixels.numpy(), "pixels"), wrapped


@pytest.mark.parametrize(
    ("opset", "channels_last"), [(18, False), (20, True), (23, False)], ids=["18, NCHW", "20, NHWC", "23, NCHW"]
)
def test_a_classifier_gives_the_logits_of_its_file(tmp_path: Path, opset: int, channels_last: bool) -> None:
    path = save_onnx(tmp_path / "m.onnx", Classifier(channels_last=channels_last), ["out"], opset_version=opset)
    raw, found, wrapped = raw_and_wrapped(path, "classification", OutputFormat())
    np.testing.assert_allclose(found["logits"], raw["out"], atol=1e-5)
    assert found.keys() == {"logits"}
    assert raw["out"].std() > 0.1, "equal logits would prove nothing"
    assert [dims_of(output) for output in wrapped.graph.output] == [[None, 5]]


def test_a_fixed_batch_is_opened(tmp_path: Path) -> None:
    network = Classifier()
    fixed = save_onnx(tmp_path / "fixed.onnx", network, ["out"], dynamic=False)
    dynamic = save_onnx(tmp_path / "dynamic.onnx", network, ["out"])
    ours, theirs = (wrap_onnx(path, EXACT, "classification", OutputFormat()) for path in (fixed, dynamic))
    for count in (1, 2, 5):
        pixels = load_pixels(count, EXACT).numpy()
        found, expected = run(ours, pixels, "pixels")["logits"], run(theirs, pixels, "pixels")["logits"]
        assert found.shape == (count, 5)
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_model_in_half_precision_takes_halves_and_gives_floats(tmp_path: Path) -> None:
    path = save_onnx(tmp_path / "m.onnx", Classifier(torch.float16), ["out"])
    raw, found, _ = raw_and_wrapped(path, "classification", OutputFormat())
    assert found["logits"].dtype == np.float32
    np.testing.assert_allclose(found["logits"], raw["out"], atol=5e-3)


def test_probabilities_become_their_logits(tmp_path: Path) -> None:
    path = save_onnx(tmp_path / "m.onnx", nn.Sequential(Classifier(), nn.Softmax(dim=1)), ["out"])
    raw, found, _ = raw_and_wrapped(path, "classification", OutputFormat(format="probabilities"))
    np.testing.assert_allclose(np.exp(found["logits"]), raw["out"], atol=1e-6)


def test_images_of_any_size_stay_so(tmp_path: Path) -> None:
    dynamic = torch.export.Dim.DYNAMIC
    shapes = ({0: dynamic, 2: dynamic, 3: dynamic},)
    path = save_onnx(tmp_path / "m.onnx", Classifier(), ["out"], dynamic_shapes=shapes)
    raw, found, wrapped = raw_and_wrapped(path, "classification", OutputFormat(), preprocessing=ANY_SIZE)
    np.testing.assert_allclose(found["logits"], raw["out"], atol=1e-5)
    other = run(wrapped, np.zeros((1, 48, 30, 3), dtype=np.uint8), "pixels")
    assert other["logits"].shape == (1, 5)


def test_an_old_opset_is_converted(tmp_path: Path) -> None:
    """Opset 11, as many models of the past have it; its batch of 1 stands in input and output."""
    generator = np.random.default_rng(0)
    weights = numpy_helper.from_array(generator.normal(size=(4, 3, 3, 3)).astype(np.float32), "w")
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, HEIGHT, WIDTH])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 4])
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["boxes"]),  # a name that our outputs have, too
        helper.make_node("GlobalAveragePool", ["boxes"], ["scores"]),
        helper.make_node("Flatten", ["scores"], ["logits"], axis=1),
    ]
    graph = helper.make_graph(nodes, "old", [image], [logits], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    onnx.save(model, tmp_path / "m.onnx")
    found = run(
        wrap_onnx(tmp_path / "m.onnx", EXACT, "classification", OutputFormat()), load_pixels(3, EXACT).numpy(), "pixels"
    )["logits"]
    images = Normalize(EXACT)(load_pixels(3, EXACT)).numpy()
    expected = [run(tmp_path / "m.onnx", images[index : index + 1], "x")["logits"][0] for index in range(3)]
    np.testing.assert_allclose(found, expected, atol=1e-5)


FORMATS = {
    "boxes_scores": OutputFormat(),
    "yolo columns": OutputFormat(format="yolo", layout="columns", objectness=False, index=1, activation="sigmoid"),
    "yolo rows": OutputFormat(
        format="yolo", layout="rows", objectness=True, index=1, normalized=True, activation="sigmoid"
    ),
    "detr softmax": OutputFormat(format="detr", activation="softmax"),
    "detr sigmoid": OutputFormat(format="detr", activation="sigmoid"),
}
NAMES = {"yolo": ["features", "rows"], "detr": ["logits", "pred_boxes"], None: ["boxes", "scores"]}


@pytest.mark.parametrize(
    ("output", "named"),
    [*((output, True) for output in FORMATS.values()), (FORMATS["detr softmax"], False)],
    ids=[*FORMATS, "detr in order"],
)
def test_a_detector_is_decoded_as_the_torch_graph_decodes_it(tmp_path: Path, output: OutputFormat, named: bool) -> None:
    network = Detector(output)
    names = NAMES[output.format] if named else ["a", "b"]
    path = save_onnx(tmp_path / "m.onnx", network, names)
    _, found, wrapped = raw_and_wrapped(path, "detection", output)
    with torch.inference_mode():
        expected = build_graph(network, "detection", EXACT, output)(load_pixels(3, EXACT))
    assert found.keys() == expected.keys() == {"boxes", "scores"}
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values.numpy(), atol=1e-4)
    sizes = {value.name: dims_of(value) for value in wrapped.graph.output}
    assert sizes == {name: [None, *values.shape[1:]] for name, values in expected.items()}


def test_the_wrapped_model_has_one_input_of_the_artifacts_shape(tmp_path: Path) -> None:
    wrapped = wrap_onnx(save_onnx(tmp_path / "m.onnx", Classifier(), ["out"]), EXACT, "classification", OutputFormat())
    [pixels] = wrapped.graph.input
    sizes = [dim.dim_value or dim.dim_param for dim in pixels.type.tensor_type.shape.dim]
    assert (pixels.name, pixels.type.tensor_type.elem_type) == ("pixels", TensorProto.UINT8)
    assert isinstance(sizes[0], str)
    assert sizes[1:] == [HEIGHT, WIDTH, 3]


class FixedBatch(Classifier):
    def forward(self, images: Tensor) -> Tensor:
        features = self.layers(images).mean((2, 3))
        return self.head(features.reshape(2, 6))  # type: ignore[no-any-return]


def test_a_batch_that_a_node_fixes_stays_as_it_is(tmp_path: Path) -> None:
    path = save_onnx(tmp_path / "m.onnx", FixedBatch(), ["out"], dynamic=False, optimize=False)
    raw, found, wrapped = raw_and_wrapped(path, "classification", OutputFormat(), count=2)
    np.testing.assert_allclose(found["logits"], raw["out"], atol=1e-5)
    [pixels], [logits] = wrapped.graph.input, wrapped.graph.output
    assert (dims_of(pixels), dims_of(logits)) == ([2, HEIGHT, WIDTH, 3], [2, 5])


def tiny(path: Path, shape: list[int | str], kind: int = TensorProto.FLOAT, inputs: int = 1) -> Path:
    """A model that gives its first input back."""
    values = [helper.make_tensor_value_info(f"x{index}", kind, shape) for index in range(inputs)]
    result = helper.make_tensor_value_info("y", kind, shape)
    graph = helper.make_graph([helper.make_node("Identity", ["x0"], ["y"])], "tiny", values, [result])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


IMAGE: list[int | str] = ["N", 3, HEIGHT, WIDTH]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": ["N", 1, HEIGHT, WIDTH]}, "has no 3 channels"),
        ({"shape": ["N", 3, HEIGHT]}, r"expected FLOAT, FLOAT16 or UINT8 \(N, 3, H, W\)"),
        ({"shape": IMAGE, "kind": TensorProto.INT64}, "is INT64"),
        ({"shape": IMAGE, "inputs": 2}, r"expected one input, an image; it has \['x0', 'x1'\]"),
        ({"shape": ["N", 3, 64, 64]}, r"takes images of 64 x 64 \(height x width\), `preprocessing` makes 24 x 32"),
        ({"shape": IMAGE}, r"needs logits \(N, C\); .* gave \{y: \(\?, 3, 24, 32\)\}"),
    ],
    ids=["channels", "dimensions", "type", "inputs", "size", "output"],
)
def test_a_model_of_another_form_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        wrap_onnx(tiny(tmp_path / "m.onnx", **changes), EXACT, "classification", OutputFormat())


def test_a_model_of_one_size_needs_preprocessing_to_one_size(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="`preprocessing` makes any x any"):
        wrap_onnx(tiny(tmp_path / "m.onnx", IMAGE), ANY_SIZE, "classification", OutputFormat())


@pytest.mark.parametrize("content", [None, b"", b"garbage " * 9], ids=["missing", "empty", "garbage"])
def test_what_is_no_onnx_model_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ConfigError, match=r"m\.onnx: no "):
        wrap_onnx(tmp_path / "m.onnx", EXACT, "classification", OutputFormat())


@pytest.mark.parametrize(
    ("names", "task", "output", "message"),
    [
        (["a", "b", "c"], "detection", OutputFormat(), r"needs boxes \(N, Q, 4\) and scores \(N, Q, C\); .*gave \{a: "),
        (["a", "b", "c"], "classification", OutputFormat(), "what fits: output: {format: logits, index: 0} or "),
        (["a", "b", "c"], "classification", OutputFormat(index=3), "what fits: output: {format: logits, index: 0} or "),
    ],
    ids=["names", "no index", "index"],
)
def test_outputs_that_cannot_be_told_apart_are_refused(
    tmp_path: Path, names: list[str], task: Task, output: OutputFormat, message: str
) -> None:
    class Three(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = Classifier()

        def forward(self, images: Tensor) -> tuple[Tensor, ...]:
            logits = self.network(images)
            return logits, logits * 2, logits * 3

    with pytest.raises(ConfigError, match=message):
        wrap_onnx(save_onnx(tmp_path / "m.onnx", Three(), names), EXACT, task, output)


def test_a_layout_that_leaves_no_class_is_refused(tmp_path: Path) -> None:
    network = Detector(FORMATS["yolo columns"])
    path = save_onnx(tmp_path / "m.onnx", network, ["a", "b"])
    wrong = OutputFormat(format="yolo", layout="columns", objectness=True, index=0)
    with pytest.raises(
        ConfigError,
        match=r"needs rows \(N, Q, 4 \+ C\); .* layout: columns, objectness: false, index: 1\}",
    ):
        wrap_onnx(path, EXACT, "detection", wrong)
