"""int8 by PT2E, with layers in float until the calibration pictures answer as they should."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from mar_tools.exporting.calibration import COMPARED_IMAGES, outputs_snr_db, quantize_with_float_layers
from mar_tools.exporting.exporters.base import ExportJob
from mar_tools.exporting.torch_programs import separate_convolutions
from vision_serving.errors import ConfigError

MakeQuantizer = Callable[[Sequence[str]], Any]  # of the names of modules that stay in float


def quantize_static(job: ExportJob, make_quantizer: MakeQuantizer) -> tuple[nn.Module, dict[str, Any]]:
    """Return the quantised program of one picture, and the report."""
    scheme = job.calibration.quantization.scheme
    if scheme not in ("auto", "static"):
        raise ConfigError(f"quantization scheme {scheme!r}: this format has int8 by 'static' alone")
    compared = job.calibration.batches[:COMPARED_IMAGES]
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(job.graph, (job.pixels[:1],), strict=True)
        expected = [job.graph(pixels) for pixels in compared]
        quantized, float_layers = quantize_with_float_layers(
            job.calibration,
            [name for name, layer in job.graph.named_modules() if isinstance(layer, (nn.Conv2d, nn.Linear))],
            lambda kept: _calibrate(program, job, make_quantizer([*kept, *job.float_layers])),
            lambda model: outputs_snr_db(expected, [model(pixels) for pixels in compared]),
        )
    return quantized, {
        "scheme": "static",
        "calibration_images": len(job.calibration.batches),
        "float_layers": float_layers,
    }


def _calibrate(program: torch.export.ExportedProgram, job: ExportJob, quantizer: Any) -> nn.Module:
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    prepared = prepare_pt2e(separate_convolutions(program), quantizer)
    for pixels in job.calibration.batches:
        prepared(pixels)
    converted: nn.Module = convert_pt2e(prepared)
    return converted
