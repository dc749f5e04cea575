"""int8 of folders: which weights have 8 bits, what rounding costs them, and boxes beside those of the same place."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from mar_tools.edge.answered_boxes import answered_iou, have_same_places
from mar_tools.edge.formats import quantizing
from mar_tools.edge.formats.onnx_weights import find_outer_layers, pack_weights, round_weights
from vision_serving.errors import ConfigError
from vision_serving.options import DetectionOptions


def make_model() -> onnx.ModelProto:
    """Return two convolutions after another, and two heads after them that share a third one's weights."""
    random = np.random.default_rng(0)
    weights = {name: random.normal(size=(4, 4, 3, 3)).astype(np.float32) for name in ("a", "b", "shared")}
    weights["linear"] = random.normal(size=(5, 4)).astype(np.float32)
    same = {"pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["first"], "first", **same),
        helper.make_node("Conv", ["first", "b"], ["second"], "second", **same),
        helper.make_node("Conv", ["second", "shared"], ["third"], "third", **same),
        helper.make_node("Conv", ["third", "shared"], ["fourth"], "fourth", **same),
        helper.make_node("GlobalAveragePool", ["fourth"], ["pooled"], "pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], "flatten"),
        helper.make_node("Gemm", ["flat", "linear"], ["y"], "head", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 4, 8, 8))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 5))],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def run(model: onnx.ModelProto, pixels: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": pixels})
    return np.asarray(found)


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    return {tensor.name: tensor.data_type for tensor in model.graph.initializer}


def test_all_weights_have_8_bits_but_those_of_the_first_and_the_last_layers() -> None:
    model, pixels = make_model(), np.random.default_rng(1).normal(size=(1, 4, 8, 8)).astype(np.float32)
    expected = run(model, pixels)
    assert find_outer_layers(model.graph) == {"first", "head"}
    assert pack_weights(model, "auto") == ["first", "head"]
    onnx.checker.check_model(model)
    types = types_of(model)
    assert types["a"] == types["linear"] == TensorProto.FLOAT
    assert types["b_int8"] == types["shared_int8"] == TensorProto.INT8
    assert not {"b", "shared"} & set(types)
    assert 0 < np.abs(run(model, pixels) - expected).max() < 0.05 * np.abs(expected).max()


def test_the_layers_of_a_recipe_stay_in_float_and_an_unknown_one_is_refused() -> None:
    model = make_model()
    assert pack_weights(model, ["third"]) == ["third"]
    assert "shared" in types_of(model)  # the fourth layer has the same weights
    assert {"a_int8", "b_int8", "linear_int8"} <= set(types_of(model))
    with pytest.raises(ConfigError, match="no layer 'fifth'"):
        pack_weights(make_model(), ["fifth"])


@pytest.mark.parametrize("axis", [0, 1])
def test_a_weight_is_off_by_half_a_level_of_its_channel_at_most(axis: int) -> None:
    values = np.random.default_rng(2).normal(size=(6, 7)).astype(np.float32)
    values[:, 3] *= 100
    levels, scales = round_weights(values, axis)
    shape = (-1, 1) if axis == 0 else (1, -1)
    assert np.all(np.abs(levels * scales.reshape(shape) - values) <= 0.5001 * scales.reshape(shape))


def test_a_channel_of_zeros_stays_so() -> None:
    levels, scales = round_weights(np.zeros((2, 3), np.float32), 0)
    assert not levels.any()
    assert np.isfinite(scales).all()


def test_a_box_is_compared_with_its_own_place_whichever_of_two_near_ties_wins() -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 10], [1.0, 0, 11, 10]]])
    expected = {"boxes": boxes, "scores": torch.tensor([[[0.90], [0.89]]])}
    found = {"boxes": boxes.clone(), "scores": torch.tensor([[[0.89], [0.90]]])}  # now the other one wins the NMS
    assert have_same_places(expected, found)
    assert answered_iou(expected, found, DetectionOptions()) == 1.0
    found["boxes"][0, 1, 2] += 1.0  # 11 wide: 10 of 11 are shared
    assert answered_iou(expected, found, DetectionOptions()) == pytest.approx(10 / 11)


def test_without_boxes_nothing_is_off_and_padded_outputs_have_no_places() -> None:
    outputs = {"boxes": torch.zeros(1, 3, 4), "scores": torch.zeros(1, 3, 2)}
    assert answered_iou(outputs, outputs, DetectionOptions()) == 1.0
    assert not have_same_places({**outputs, "class_ids": torch.zeros(1, 3)}, outputs)


class TwoHeads(nn.Module):
    """A stem, a depthwise convolution, and two heads; one of them answers twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.trunk = nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 3, groups=4))
        self.boxes = nn.Conv2d(4, 4, 1)
        self.scores = nn.Linear(4, 2)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.trunk(self.stem(images))
        return self.boxes(features), self.boxes(features[..., ::2]), self.scores(features.mean((2, 3)))


def test_the_outer_layers_of_a_program_are_those_at_its_ends() -> None:
    program = torch.export.export(TwoHeads().eval(), (torch.zeros(1, 3, 12, 12),), strict=True)
    assert quantizing.find_outer_layers(program.graph) == ["stem", "boxes", "scores"]
    depthwise = [quantizing.layer_of(node) for node in program.graph.nodes if quantizing.is_depthwise(node)]
    assert depthwise == ["trunk.1"]
