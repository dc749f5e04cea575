"""ONNX, run as it is (ONNX Runtime optimises it when it loads it) or quantised with QDQ pairs."""

import itertools
import math
import shutil
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime import quantization as ort_quantization
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor

from mar_tools.exporting.calibration import COMPARED_IMAGES, outputs_snr_db, quantize_with_float_layers
from mar_tools.exporting.exporters.base import Exported, ExportJob, Precisions, report_own_scales
from mar_tools.exporting.onnx_export import export_onnx

PRECISIONS: Precisions = {"cpu": {"int8": 50, "fp32": 80}, "cuda": {"fp16": 60, "fp32": 150}}
ONNX_PRECISIONS = ("fp32", "int8")
ARTIFACT = "model.onnx"
MATRIX_PRODUCTS = ("MatMul", "Gemm")
QUANTIZED_OPERATORS = ("Conv", *MATRIX_PRODUCTS)
SYMMETRIC = {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False, "AddQDQPairToWeight": True}
DYNAMIC_SHARE = 0.8  # of the weights in matrix products, from which on dynamic quantisation is the better one


def export(job: ExportJob, folder: Path) -> Exported:
    quantization: dict[str, Any] = {}
    if job.precision == "int8" and not job.is_quantized_already:
        with tempfile.TemporaryDirectory() as temporary:
            export_onnx(job, Path(temporary) / ARTIFACT)
            quantization = quantize_file(job, Path(temporary) / ARTIFACT, folder / ARTIFACT)
    else:
        export_onnx(job, folder / ARTIFACT)
    if job.is_quantized_already:
        nodes = onnx.load(folder / ARTIFACT, load_external_data=False).graph.node
        quantization = report_own_scales((node.op_type for node in nodes), "QuantizeLinear")
    return Exported(ARTIFACT, quantization, cpu_features=("vnni",) if job.precision == "int8" else ())


def quantize_file(job: ExportJob, source: Path, target: Path, symmetric: bool = False) -> dict[str, Any]:
    """Write int8 to `target`, attempts beside `source`; return the report. symmetric: TensorRT's QDQ pairs."""
    prepared = source.with_name("prepared.onnx")
    quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True, save_as_external_data=True)
    model = onnx.load(prepared, load_external_data=False)
    scheme = job.calibration.quantization.scheme
    if scheme == "auto":
        scheme = "dynamic" if not symmetric and _matrix_share(model) >= DYNAMIC_SHARE else "static"
    run = _quantize_dynamic if scheme == "dynamic" else partial(_quantize_static, symmetric=symmetric)
    compared = job.calibration.batches[:COMPARED_IMAGES]
    expected = _run(prepared, compared)
    numbers = itertools.count()  # a file for each attempt: the best one need not be the last
    best, float_layers = quantize_with_float_layers(
        job.calibration,
        [node.name for node in model.graph.node if node.op_type in QUANTIZED_OPERATORS],
        lambda kept: run(prepared, source.with_name(f"int8-{next(numbers)}.onnx"), job.calibration.batches, kept),
        lambda model: outputs_snr_db(expected, _run(model, compared)),
    )
    shutil.move(best, target)
    images = len(job.calibration.batches) if scheme == "static" else 0
    return {"scheme": scheme, "calibration_images": images, "float_layers": float_layers}


class _CalibrationReader(ort_quantization.CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, batches: list[Tensor]) -> None:
        self._batches: Iterator[Tensor] = iter(batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        pixels = next(self._batches, None)
        return None if pixels is None else {"pixels": pixels.numpy()}


def _quantize_static(
    source: Path, target: Path, batches: list[Tensor], float_layers: list[str], symmetric: bool = False
) -> Path:
    activations = ort_quantization.QuantType.QInt8 if symmetric else ort_quantization.QuantType.QUInt8
    ort_quantization.quantize_static(
        str(source),
        str(target),
        _CalibrationReader(batches),
        quant_format=ort_quantization.QuantFormat.QDQ,
        op_types_to_quantize=list(QUANTIZED_OPERATORS),
        per_channel=True,
        activation_type=activations,
        weight_type=ort_quantization.QuantType.QInt8,
        nodes_to_exclude=float_layers,
        extra_options=SYMMETRIC if symmetric else {},
    )
    return target


def _quantize_dynamic(source: Path, target: Path, _: list[Tensor], float_layers: list[str]) -> Path:
    ort_quantization.quantize_dynamic(
        str(source),
        str(target),
        op_types_to_quantize=list(MATRIX_PRODUCTS),
        per_channel=True,
        weight_type=ort_quantization.QuantType.QInt8,
        nodes_to_exclude=float_layers,
    )
    return target


def _matrix_share(model: onnx.ModelProto) -> float:
    """Return the share of the weights that are in matrix products rather than convolutions."""
    sizes = {weight.name: math.prod(weight.dims) for weight in model.graph.initializer}
    totals: dict[str, int] = {}
    for node in model.graph.node:
        totals[node.op_type] = totals.get(node.op_type, 0) + sum(sizes.get(name, 0) for name in node.input)
    in_products = sum(totals.get(kind, 0) for kind in MATRIX_PRODUCTS)
    return in_products / max(1, in_products + totals.get("Conv", 0))


def _run(model: Path, batches: list[Tensor]) -> list[dict[str, Tensor]]:
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return [
        dict(zip(names, map(torch.from_numpy, session.run(names, {"pixels": pixels.numpy()})), strict=True))
        for pixels in batches
    ]
