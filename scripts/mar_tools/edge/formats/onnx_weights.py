"""The ONNX file of a build; in int8, with weights of 8 bits that are unpacked as the model runs.

What a phone downloads is a quarter, and what is computed stays in float: near the network also where rounded
activations are not. `quantization: {scheme: static}` computes in int8, as a build does.
"""

import tempfile
from collections.abc import Container, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxruntime.quantization.shape_inference import quant_pre_process

from mar_tools.edge.formats.outer_layers import find_outer
from mar_tools.exporting.exporters import load_exporter
from mar_tools.exporting.exporters.base import Exported, ExportJob
from vision_serving.errors import BackendError, ConfigError, VisionServingError, first_line, foreign_code

LAYERS = ("Conv", "Gemm", "MatMul")
LEVELS = 127  # to each side of 0
LEAST_SCALE = 1e-12  # of a channel of zeros
LEAST_OPSET = 13  # scales for each channel


def export_onnx_file(job: ExportJob, folder: Path) -> Exported:
    """Write the ONNX file. int8 without a `scheme` has weights of 8 bits alone."""
    if job.precision != "int8" or job.calibration.quantization.scheme != "auto":
        return _export(job, folder)
    with tempfile.TemporaryDirectory() as temporary:
        exported = _export(replace(job, precision="fp32"), Path(temporary))
        prepared = Path(temporary) / "prepared.onnx"
        source = str(Path(temporary) / exported.artifact)
        quant_pre_process(source, str(prepared), skip_symbolic_shape=True, save_as_external_data=True)
        model = onnx.load(prepared)
    float_layers = pack_weights(model, job.calibration.quantization.float_layers)
    onnx.save(model, folder / exported.artifact)
    return Exported(exported.artifact, {"scheme": "weights", "float_layers": float_layers})


def _export(job: ExportJob, folder: Path) -> Exported:
    """Export as a build does. Raises BackendError for operators that ONNX lacks."""

    def explain(error: BaseException) -> BackendError:
        reason = first_line(error.__cause__ or error)  # around it is advice to the exporter's authors
        return BackendError(f"ONNX cannot take this model: {reason[:200]}")

    with foreign_code(explain, (VisionServingError, OSError)):
        exported: Exported = load_exporter("onnxruntime", job.precision).export(job, folder)
    return exported


def pack_weights(model: onnx.ModelProto, named: Sequence[str] | str) -> list[str]:
    """Store the weights of layers in 8 bits, and return the layers that keep theirs. named: those, or `auto`."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    layers = [node for node in model.graph.node if node.op_type in LAYERS and node.input[1] in weights]
    kept = sorted(find_outer_layers(model.graph)) if isinstance(named, str) else list(named)
    if unknown := sorted(set(kept) - {node.name for node in layers}):
        raise ConfigError(
            f"quantization.float_layers: no layer {unknown[0]!r} to keep in float; this format calls its layers "
            f"{', '.join(node.name for node in layers[:3])}, ..."
        )
    if any(entry.domain in ("", "ai.onnx") and entry.version < LEAST_OPSET for entry in model.opset_import):
        raise ConfigError(f"int8 needs an ONNX file of opset {LEAST_OPSET} or later")
    packed: dict[str, str] = {}
    in_float = {node.input[1] for node in layers if node.name in kept}
    for node in layers:
        name = node.input[1]
        if name in in_float:
            continue
        if name not in packed:
            packed[name] = f"{name}_unpacked"
            _pack(model.graph, weights[name], find_axis(node, len(weights[name].dims)))
        node.input[1] = packed[name]
    _drop_unused(model.graph, packed)
    return kept


def find_outer_layers(graph: onnx.GraphProto) -> set[str]:
    """Return the names of the layers at both ends."""
    weights = {tensor.name for tensor in graph.initializer}
    layers = {node.name for node in graph.node if node.op_type in LAYERS and node.input[1] in weights}
    return set(find_outer((node.input, node.output, node.name if node.name in layers else None) for node in graph.node))


def find_axis(node: onnx.NodeProto, dimensions: int) -> int:
    """Return the axis of a layer's weights that counts its outputs."""
    if node.op_type == "Conv":
        return 0
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return 0 if transposed else dimensions - 1


def round_weights(values: NDArray[np.float32], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return weights as levels from -127 to 127, and the scale of each channel of the axis."""
    others = tuple(other for other in range(values.ndim) if other != axis)
    scales = np.maximum(np.abs(values).max(axis=others) / LEVELS, LEAST_SCALE).astype(np.float32)
    shape = [-1 if other == axis else 1 for other in range(values.ndim)]
    return np.rint(values / scales.reshape(shape)).astype(np.int8), scales


def _pack(graph: onnx.GraphProto, tensor: onnx.TensorProto, axis: int) -> None:
    levels, scales = round_weights(numpy_helper.to_array(tensor).astype(np.float32), axis)
    names = [f"{tensor.name}_{part}" for part in ("int8", "scale", "zero")]
    values: list[NDArray[Any]] = [levels, scales, np.zeros(len(scales), np.int8)]
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in zip(names, values, strict=True))
    unpack = onnx.helper.make_node(
        "DequantizeLinear", names, [f"{tensor.name}_unpacked"], f"{tensor.name}_unpack", axis=axis
    )
    graph.node.insert(0, unpack)


def _drop_unused(graph: onnx.GraphProto, names: Container[str]) -> None:
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name in names and tensor.name not in used]:
        graph.initializer.remove(tensor)
