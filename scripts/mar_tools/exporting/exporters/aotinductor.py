"""`torch.export`, then compiled ahead of time by Inductor, with a dynamic batch; int8 through PyTorch's PT2E."""

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._inductor import cpu_vec_isa
from torch._inductor.cpp_builder import get_cpp_compiler
from torch._inductor.exc import InvalidCxxCompiler
from torch.export import ExportedProgram

from mar_tools.exporting.calibration import COMPARED_IMAGES, outputs_snr_db, quantize_with_float_layers
from mar_tools.exporting.exporters.base import Exported, ExportJob, Precisions, require_python_network
from mar_tools.exporting.torch_programs import export_program, separate_convolutions
from vision_serving.errors import BackendError

PRECISIONS: Precisions = {"cpu": {"int8": 30, "bf16": 40, "fp32": 70}, "cuda": {"fp16": 40, "bf16": 50, "fp32": 140}}
ARTIFACT = "model.pt2"
# Weights are packed for the CPU's kernels when compiled, not at each batch; and the kernels run with the threads of the
# process that serves them, else with as many as this one has.
INDUCTOR = {"freezing": True, "cpp.dynamic_threads": True}


def export(job: ExportJob, folder: Path) -> Exported:
    require_python_network(job)
    if not job.has_fixed_size:
        raise BackendError(
            "aotinductor needs images of one size: torch.export cannot keep height and width open in a detector that "
            "takes any, because its grids divide them; use openvino, onnxruntime or torchscript"
        )
    require_compiler()
    quantization: dict[str, Any] = {}
    if job.precision == "int8":
        graph, quantization = quantize(job)
    else:
        graph = job.float_graph()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch._inductor.aoti_compile_and_package(
            export_program(graph, job.pixels), package_path=str(folder / ARTIFACT), inductor_configs=INDUCTOR
        )
    return Exported(ARTIFACT, quantization, cpu_features=compiled_cpu_features(job))


def require_compiler() -> None:
    """Raises BackendError where there is none. What it compiled runs without."""
    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise BackendError("aotinductor compiles C++ when a model is exported: install g++") from error


def quantize(job: ExportJob) -> tuple[nn.Module, dict[str, Any]]:
    """Quantise convolutions and linear layers to static int8; they go by the names of their modules."""
    if job.calibration.quantization.scheme not in ("auto", "static"):
        raise BackendError(f"aotinductor has no int8 scheme {job.calibration.quantization.scheme!r}; it has 'static'")
    program = export_program(job.graph, job.pixels, strict=True)
    compared = job.calibration.batches[:COMPARED_IMAGES]
    with torch.no_grad():
        expected = [job.graph(pixels) for pixels in compared]
        quantized, float_layers = quantize_with_float_layers(
            job.calibration,
            [name for name, layer in job.graph.named_modules() if isinstance(layer, (nn.Conv2d, nn.Linear))],
            lambda kept: quantize_program(program, job.calibration.batches, kept),
            lambda model: outputs_snr_db(expected, [model(pixels) for pixels in compared]),
        )
    report = {"scheme": "static", "calibration_images": len(job.calibration.batches), "float_layers": float_layers}
    return quantized, report


def quantize_program(program: ExportedProgram, batches: list[Tensor], float_layers: list[str]) -> nn.Module:
    """Quantise a program. float_layers: names of its modules. The result computes as the int8 kernels will."""
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
    for name in float_layers:
        quantizer.set_module_name_qconfig(name, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prepared = prepare_pt2e(separate_convolutions(program), quantizer)
        for pixels in batches:
            prepared(pixels)
        converted: nn.Module = convert_pt2e(prepared)
    return converted


def compiled_cpu_features(job: ExportJob) -> tuple[str, ...]:
    """Return the vector instructions that Inductor compiled for: on a CPU without them the artifact would crash."""
    if job.device_type != "cpu":
        return ()
    compiled_for = str(cpu_vec_isa.pick_vec_isa())
    features = [name for name in ("avx2", "avx512", "vnni") if name in compiled_for]
    return (*features, *(["bf16"] if job.precision == "bf16" else []))
