"""int8 by PT2E: activations get their range from each picture, or from the calibration pictures beforehand."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.fx import Graph, Node

from mar_tools.edge.formats.outer_layers import find_outer
from mar_tools.exporting.calibration import COMPARED_IMAGES, outputs_snr_db, quantize_with_float_layers
from mar_tools.exporting.exporters.base import ExportJob
from mar_tools.exporting.torch_programs import CONVOLUTIONS, separate_convolutions
from vision_serving.errors import ConfigError

LAYERS = {*CONVOLUTIONS, torch.ops.aten.linear.default}
MakeQuantizer = Callable[[Sequence[str], bool], Any]  # of the layers that stay in float, and whether it is dynamic


def quantize_program(job: ExportJob, make_quantizer: MakeQuantizer) -> tuple[nn.Module, dict[str, Any]]:
    """Return the quantised program of one picture, and the report. Raises ConfigError for the scheme `checkpoint`.

    Where the recipe has no scheme, ranges are each picture's own, because ranges of other pictures move boxes. Networks
    with depthwise convolutions, which XNNPACK cannot compute so, get theirs from the calibration pictures.
    """
    wanted = job.calibration.quantization
    if wanted.scheme == "checkpoint":
        raise ConfigError("quantization scheme 'checkpoint': this format has int8 by 'dynamic' and 'static' alone")
    compared = job.calibration.batches[:COMPARED_IMAGES]
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(job.graph, (job.pixels[:1],), strict=True)
        expected = [job.graph(pixels) for pixels in compared]
        is_dynamic = wanted.scheme == "dynamic" or (
            wanted.scheme == "auto" and not any(is_depthwise(node) for node in program.graph.nodes)
        )
        if is_dynamic and wanted.float_layers == "auto":
            wanted = wanted.model_copy(update={"float_layers": find_outer_layers(program.graph)})
        quantized, float_layers = quantize_with_float_layers(
            replace(job.calibration, quantization=wanted),
            [name for name, layer in job.graph.named_modules() if isinstance(layer, (nn.Conv2d, nn.Linear))],
            lambda kept: _calibrate(program, job, make_quantizer([*kept, *job.float_layers], is_dynamic)),
            lambda model: outputs_snr_db(expected, [model(pixels) for pixels in compared]),
        )
    images = {} if is_dynamic else {"calibration_images": len(job.calibration.batches)}
    return quantized, {"scheme": "dynamic" if is_dynamic else "static", **images, "float_layers": float_layers}


def find_outer_layers(graph: Graph) -> list[str]:
    """Return the names of the layers at both ends, in the order of computation."""
    return find_outer(
        (node.all_input_nodes, (node,), layer_of(node) if node.target in LAYERS else None) for node in graph.nodes
    )


def layer_of(node: Node) -> str:
    """Return the name of the innermost module that a node is computed in."""
    stack = list(node.meta.get("nn_module_stack", {}).values())  # (name, type), the innermost last
    return str(stack[-1][0]).removeprefix("L['self'].") if stack else ""


def is_depthwise(node: Node) -> bool:
    return node.target in CONVOLUTIONS and node.args[6:] not in ((), (1,))  # groups


def _calibrate(program: torch.export.ExportedProgram, job: ExportJob, quantizer: Any) -> nn.Module:
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    prepared = prepare_pt2e(separate_convolutions(program), quantizer)
    for pixels in job.calibration.batches:
        prepared(pixels)
    converted: nn.Module = convert_pt2e(prepared)
    return converted
