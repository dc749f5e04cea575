"""What a user's ONNX file holds: one image input, a batch of any size, an opset that our own stages have, too."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from onnx import shape_inference, version_converter

from vision_serving.config import PreprocessingConfig
from vision_serving.errors import ConfigError

OLDEST_OPSET = 18  # of what torch exports without a conversion
FLOATS = {onnx.TensorProto.FLOAT: torch.float32, onnx.TensorProto.FLOAT16: torch.float16}
TYPES = {**FLOATS, onnx.TensorProto.INT64: torch.int64, onnx.TensorProto.INT32: torch.int32}
IMAGES = {**FLOATS, onnx.TensorProto.UINT8: torch.uint8}
UNLIKELY_BATCH = 7  # a number that no other dimension has by chance


@dataclass(frozen=True)
class ModelInput:
    """The one image input of a model; of uint8, it takes pixels as they are.

    height, width: None where it takes any. size_dtypes: of its other inputs.
    """

    name: str
    dtype: torch.dtype
    channels_last: bool
    channels: int
    height: int | None
    width: int | None
    size_dtypes: Mapping[str, torch.dtype]


def read_onnx(path: Path) -> onnx.ModelProto:
    """Return the model with its external weights, in an opset that our stages have, too."""
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; `file` is looked up beside the recipe")
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
        if opset_of(model) < OLDEST_OPSET:
            model = version_converter.convert_version(model, OLDEST_OPSET)
    except Exception as error:  # protobuf, the checker and the converter each have errors of their own
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"{path}: no ONNX model that can be used ({type(error).__name__}: {reason})") from error
    return model


def opset_of(model: onnx.ModelProto) -> int:
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def list_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Return what the model takes, the image first."""
    weights = {weight.name for weight in model.graph.initializer}  # old exporters list them among the inputs
    inputs = [value for value in model.graph.input if value.name not in weights]
    return sorted(inputs, key=lambda value: len(dims_of(value) or ()) != 4)


def read_input(model: onnx.ModelProto, path: Path, sizes: Collection[str] = (), channels: int = 3) -> ModelInput:
    """Read the image input. sizes: names of the others."""
    inputs = list_inputs(model)
    if [value.name for value in inputs[1:]] != list(sizes):
        raise ConfigError(f"{path}: expected one input, an image; it has {[value.name for value in inputs]}")
    tensor = inputs[0].type.tensor_type
    shape = dims_of(inputs[0])
    if tensor.elem_type not in IMAGES or shape is None or len(shape) != 4:
        kind = onnx.TensorProto.DataType.Name(tensor.elem_type)
        raise ConfigError(
            f"{path}: input {inputs[0].name!r} is {kind} {shape}; expected FLOAT, FLOAT16 or UINT8 "
            f"(N, {channels}, H, W)"
        )
    channels_last = shape[1] != channels and shape[3] == channels
    if not channels_last and shape[1] not in (channels, None):
        raise ConfigError(
            f"{path}: input {inputs[0].name!r} {shape} has no {channels} channels, which `preprocessing` makes"
        )
    height, width = shape[1:3] if channels_last else shape[2:4]
    size_dtypes = {value.name: TYPES[value.type.tensor_type.elem_type] for value in inputs[1:]}
    dtype = IMAGES[tensor.elem_type]
    return ModelInput(inputs[0].name, dtype, channels_last, channels, height, width, size_dtypes)


def dims_of(value: onnx.ValueInfoProto) -> list[int | None] | None:
    """Return the sizes of a value, None where one is open; None when not even their number is known."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]


def check_size(model_input: ModelInput, preprocessing: PreprocessingConfig, path: Path) -> None:
    wanted = (model_input.height, model_input.width)
    if wanted == (None, None):
        return
    made = preprocessing.fixed_hw or ("any", "any")
    if any(want is not None and want != size for want, size in zip(wanted, made, strict=True)):
        raise ConfigError(
            f"{path}: the model takes images of {wanted[0]} x {wanted[1]} (height x width), `preprocessing` makes "
            f"{made[0]} x {made[1]}"
        )


def open_batch(model: onnx.ModelProto, path: Path) -> int | None:
    """Open the first dimension of input and outputs; return its size where a node inside the graph fixes it.

    Raises ConfigError where a node fixes it to another size than the input's.
    """
    before = onnx.GraphProto()
    before.input.extend(model.graph.input)
    before.output.extend(model.graph.output)
    del model.graph.value_info[:]  # shapes that an exporter noted for its own batch
    problem = _open_batch(model)
    if problem is None:
        return None
    del model.graph.input[:], model.graph.output[:]
    model.graph.input.extend(before.input)
    model.graph.output.extend(before.output)
    size = (dims_of(list_inputs(model)[0]) or [None])[0]
    if size is None:
        raise ConfigError(f"{path}: the graph does not take a batch of any size ({problem}), and its input says so")
    return size


def find_fixed_batch(path: Path) -> int | None:
    """Return how many images the graph of a file takes at a time; None where it takes any number."""
    return open_batch(read_onnx(path), path)


def _open_batch(model: onnx.ModelProto) -> str | None:
    """Return why it cannot be opened, in a few words."""
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    batches = [value.type.tensor_type.shape.dim[0] for value in list_inputs(model)]
    for batch in batches:
        batch.dim_value = UNLIKELY_BATCH
    try:
        inferred = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except Exception as error:  # InferenceError is a RuntimeError, a model above 2 GB a ValueError
        return " ".join(str(error).split())[:200]
    for output, found in zip(model.graph.output, inferred.graph.output, strict=True):
        shape = dims_of(found)
        if shape and shape[0] not in (UNLIKELY_BATCH, None):
            return f"output {output.name!r} is {tuple(shape)} for a batch of {UNLIKELY_BATCH}"
        if shape is not None:
            output.type.tensor_type.shape.CopyFrom(found.type.tensor_type.shape)
            output.type.tensor_type.shape.dim[0].dim_param = "N"
    for batch in batches:
        batch.dim_param = "N"
    return None
