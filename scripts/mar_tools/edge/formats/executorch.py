"""ExecuTorch's program with XNNPACK kernels, for phones and boards: one picture at a time."""

import logging
import sys
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
    XNNPACKQuantizer,
    get_symmetric_quantization_config,
)
from executorch.exir import to_edge_transform_and_lower
from torch.fx import Node

from mar_tools.command_line import Announce
from mar_tools.edge.formats.base import CARRIED_PYTHON, Written, require_fixed_size
from mar_tools.edge.formats.quantizing import is_depthwise, layer_of, quantize_program
from mar_tools.edge.running import EdgeModel, open_process
from mar_tools.exporting.exporters.base import ExportJob, require_python_network
from vision_serving.errors import BackendError, VisionServingError, foreign_code, last_line

PRECISIONS = ("fp32", "int8")
REQUIREMENTS = "executorch"
CARRIED = {**CARRIED_PYTHON, "run_executorch.py": "runtime.py"}
ARTIFACT = "model.pte"


def write(job: ExportJob, folder: Path, announce: Announce) -> Written:
    """Export, quantise and lower. Raises BackendError for operators that ExecuTorch lacks."""
    require_python_network(job)
    require_fixed_size(job, "executorch")
    quantization: dict[str, Any] = {}
    graph = job.graph
    logging.getLogger("executorch").setLevel(logging.ERROR)

    def explain(error: BaseException) -> BackendError:
        return BackendError(f"ExecuTorch cannot take this model: {last_line(error)[:200]}; use --format ort")

    with foreign_code(explain, (VisionServingError, OSError)):
        if job.precision == "int8":
            graph, quantization = quantize_program(job, make_quantizer)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(graph, (job.pixels[:1],), strict=True)
            lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch()
    (folder / ARTIFACT).write_bytes(lowered.buffer)
    return Written(ARTIFACT, 1, quantization)


def make_quantizer(float_layers: Sequence[str], is_dynamic: bool) -> XNNPACKQuantizer:
    """Return what quantises the layers of PyTorch alone, and of those none of these names.

    What a network computes itself stays in float: boxes lose whole pixels when their decoding is quantised. XNNPACK has
    no depthwise convolution that finds the ranges of its inputs itself.
    """
    kept = set(float_layers)

    def is_quantized(node: Node) -> bool:
        if node.op != "call_function":  # weights, which are asked for with their layer, and know of no module
            return True
        stack = node.meta.get("nn_module_stack", {}).values()  # (name, type), the innermost last
        is_own = bool(stack) and "torch.nn.modules" in str([kind for _, kind in stack][-1])
        return is_own and layer_of(node) not in kept and not (is_dynamic and is_depthwise(node))

    config = get_symmetric_quantization_config(is_per_channel=True, is_dynamic=is_dynamic)
    return XNNPACKQuantizer().set_global(config).set_filter_function(is_quantized)


def open_runtime(folder: Path, announce: Announce) -> AbstractContextManager[EdgeModel]:
    return open_process(folder, sys.executable)
