"""Which pixels an ONNX file takes, where its own first steps scale them."""

import math

import onnx
import torch

from mar_tools.drafting.pixel_trials import GRAY
from mar_tools.exporting.onnx_files import ModelInput

SCALES, MOVES = (
    {"Sub", "Div", "Mul", "Add"},
    {"Transpose", "Cast", "Identity", "Slice"},
)  # a Slice turns the order of colours
LEVELS, UNIT = "pixels in [0, 255]", GRAY  # of the scalings: what the first steps of a file take
LEAST_SCALE = 0.1  # what steps for pixels in [0, 1] multiply them by, at least
LARGEST_UNIT = 2.0  # a mean beyond is of pixels in [0, 255]
MOST_CHANNELS = 3


def find_pixels(graph: onnx.GraphProto, model_input: ModelInput) -> str:
    """Return which pixels its first steps take, where they scale them; `` where nothing is done before the network.

    Steps of constants make `scale * pixel + shift` of a pixel. What becomes 0 is a mean: in [0, 1], or in [0, 255].
    """
    if model_input.dtype == torch.uint8:
        return UNIT  # which OnnxNetwork and the build make levels of
    name = model_input.name
    constants = _read_constants(graph)
    scale, shift = 1.0, 0.0
    for node in graph.node:
        if name not in node.input:
            continue
        if node.op_type not in MOVES and not any(other in constants for other in node.input):
            break
        if node.op_type in SCALES:
            by = next(constants[other] for other in node.input if other in constants)
            if node.op_type in ("Mul", "Div"):
                factor = by if node.op_type == "Mul" else 1 / by
                scale, shift = scale * factor, shift * factor
            else:
                shift += by if node.op_type == "Add" else -by
        elif node.op_type not in MOVES:
            break
        name = node.output[0]
    if (scale, shift) == (1.0, 0.0):
        return ""
    return LEVELS if abs(scale) < LEAST_SCALE or abs(shift) > LARGEST_UNIT * abs(scale) else UNIT


def _read_constants(graph: onnx.GraphProto) -> dict[str, float]:
    """Return the largest number of each constant, by name: a channel's mean may be 0."""
    tensors = {weight.name: weight for weight in graph.initializer}
    steps = [node for node in graph.node if node.op_type == "Constant"]
    tensors |= {node.output[0]: entry.t for node in steps for entry in node.attribute if entry.name == "value"}
    small = {
        name: onnx.numpy_helper.to_array(tensor)
        for name, tensor in tensors.items()
        if math.prod(tensor.dims) <= MOST_CHANNELS and tensor.data_location != onnx.TensorProto.EXTERNAL
    }
    return {name: float(values.max()) for name, values in small.items() if values.size and values.dtype.kind in "fiu"}
