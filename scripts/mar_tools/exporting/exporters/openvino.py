"""OpenVINO IR with fp32 weights, where bf16 is how the same graph is computed; or quantised to int8 by NNCF."""

import re
import tempfile
import warnings
from pathlib import Path
from typing import Any

import nncf
import openvino
import torch
from nncf.quantization.range_estimator import RangeEstimatorParametersSet
from torch import Tensor

from mar_tools.exporting.calibration import COMPARED_IMAGES, outputs_snr_db, quantize_with_float_layers
from mar_tools.exporting.exporters.base import Exported, ExportJob, Precisions, report_own_scales
from vision_serving.backends.openvino import keep_signal_stack
from vision_serving.errors import BackendError, last_line

PRECISIONS: Precisions = {"cpu": {"fp32": 8, "int8": 10, "bf16": 20}}  # fp32 is made in seconds, and sure
ONNX_PRECISIONS = ("fp32", "bf16", "int8")
ARTIFACT = "model.xml"
QUANTIZED_OPERATORS = ("Convolution", "GroupConvolution", "MatMul")
# What our graphs compute themselves, outside of the network's modules: boxes lose whole pixels when it is quantised.
DECODING = r"^(aten|prim|torchvision)::.*"
MODULE_PATH = re.compile(r"__module\.([\w.]+)")
# How much of an activation's range SmoothQuant moves into the weights of a matrix product; of a convolution nothing.
# NNCF's default for products, 0.95, fits the pictures that it has seen: of a ViT-B/32 (random weights, 8 pictures)
# those have 27 dB and others 16. The 0.5 of its authors (Xiao et al., "SmoothQuant", 2023) gives 27 dB and 28.
SMOOTHING = nncf.AdvancedSmoothQuantParameters(matmul=0.5, convolution=-1)
CPU_FEATURES = {"int8": ("vnni",), "bf16": ("bf16",), "fp32": ()}


@keep_signal_stack()
def export(job: ExportJob, folder: Path) -> Exported:
    model = convert(job)
    quantization: dict[str, Any] = {}
    if job.is_quantized_already:
        quantization = report_own_scales((node.get_type_name() for node in model.get_ops()), "FakeQuantize")
    elif job.precision == "int8":
        model, quantization = quantize(job, model)
    model.set_friendly_name("graph")  # the converter's names count up from call to call
    for index, node in enumerate(model.get_ordered_ops()):
        node.set_friendly_name(f"{node.get_type_name()}_{index}")
    openvino.save_model(model, folder / ARTIFACT, compress_to_fp16=False)
    return Exported(ARTIFACT, quantization, cpu_features=CPU_FEATURES[job.precision])


def convert(job: ExportJob) -> openvino.Model:
    """Convert with a dynamic batch, unless the graph fixes it, and dynamic sides where the model takes any."""
    model = convert_onnx(job) if job.onnx_file is not None else convert_graph(job)
    model.inputs[0].set_names({"pixels"})
    for output, name in zip(model.outputs, job.output_names, strict=True):
        output.set_names({name})
    return model


def convert_onnx(job: ExportJob) -> openvino.Model:
    from mar_tools.exporting.onnx_export import export_onnx  # needs packages that no other model needs here

    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "model.onnx"
        export_onnx(job, path)
        return openvino.convert_model(path)


def convert_graph(job: ExportJob) -> openvino.Model:
    """Convert what OpenVINO's converter traces."""
    height, width = job.pixels.shape[1:3] if job.has_fixed_size else (-1, -1)
    try:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the tracer's warnings: every shape that it sees may be a constant
            return openvino.convert_model(
                job.graph,
                example_input=(job.pixels,),
                input=[(openvino.PartialShape([job.fixed_batch or -1, height, width, 3]), openvino.Type.u8)],
            )
    except Exception as error:  # the converter raises all sorts: each means that this graph is not for OpenVINO
        reason = last_line(error)
        raise BackendError(f"openvino cannot convert this model ({reason[:200]}); use --backend eager") from error


def quantize(job: ExportJob, model: openvino.Model) -> tuple[openvino.Model, dict[str, Any]]:
    """Quantise by NNCF to static int8. Layers kept in float go by their modules where the converter kept those."""
    if job.calibration.quantization.scheme == "dynamic":
        raise BackendError("openvino has no int8 scheme 'dynamic' for images; it has 'static' and 'checkpoint'")
    compared = job.calibration.batches[:COMPARED_IMAGES]
    expected = infer_images(model, compared)
    layers: dict[str, list[str]] = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() in QUANTIZED_OPERATORS:
            name = node.get_friendly_name()  # as `__module.graph.network.layer1.0.conv1/aten::_convolution`
            module = MODULE_PATH.search(name)
            layers.setdefault(module.group(1) if module else name, []).append(name)
    quantized, float_layers = quantize_with_float_layers(
        job.calibration,
        list(layers),
        lambda kept: _run_nncf(job, model, [name for layer in kept for name in layers[layer]]),
        lambda found: outputs_snr_db(expected, infer_images(found, compared)),
    )
    kept = [*job.float_layers, *float_layers]
    return quantized, {"scheme": "static", "calibration_images": len(job.calibration.batches), "float_layers": kept}


def _run_nncf(job: ExportJob, model: openvino.Model, float_nodes: list[str]) -> openvino.Model:
    own = [rf"__module\.{re.escape(name)}\..*" for name in job.float_layers]
    return nncf.quantize(
        model.clone(),
        nncf.Dataset([pixels.numpy() for pixels in job.calibration.batches]),
        subset_size=len(job.calibration.batches),
        preset=nncf.QuantizationPreset.MIXED,  # asymmetric activations: hard-swish and GELU have a short negative side
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            # NNCF's default, a mean over the images, cuts off what is rare; on trained digits the worst image then has
            # -0.5 dB instead of 22 dB. Correcting biases gains nothing there (22 dB instead of 24, 27 instead of 34).
            activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
            disable_bias_correction=True,
            smooth_quant_alphas=SMOOTHING,
        ),
        model_type=nncf.ModelType.TRANSFORMER if has_attention(model) else None,
        ignored_scope=nncf.IgnoredScope(names=float_nodes, patterns=[DECODING, *own], validate=False),
    )


def has_attention(model: openvino.Model) -> bool:
    """Return whether it has attention: by its one operation, or by a softmax over (N, heads, L, L)."""
    return any(
        node.get_type_name() == "ScaledDotProductAttention" or (node.get_type_name() == "Softmax" and _rank(node) >= 4)
        for node in model.get_ops()
    )


def _rank(node: openvino.Node) -> int:
    """Return the rank, 0 where it is not known."""
    rank = node.get_output_partial_shape(0).rank
    return int(rank.get_length()) if rank.is_static else 0


def infer_images(model: openvino.Model, batches: list[Tensor]) -> list[dict[str, Tensor]]:
    properties = {"INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.Core().compile_model(model, "CPU", properties).create_infer_request()
    names = [output.any_name for output in model.outputs]
    found = []
    for pixels in batches:
        request.infer([pixels.numpy()])
        found.append({name: torch.from_numpy(request.get_output_tensor(i).data.copy()) for i, name in enumerate(names)})
    return found
