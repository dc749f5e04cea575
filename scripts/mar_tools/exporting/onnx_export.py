"""A torch graph as an ONNX file, with a dynamic batch, and dynamic height and width where the model takes any."""

import logging
import warnings
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from mar_tools.exporting.exporters.base import ExportJob
from mar_tools.exporting.onnx_models import wrap_onnx
from mar_tools.exporting.torch_programs import dynamic_batch

TRACED_OPSET = 20
DIMENSIONS = {0: "batch", 1: "height", 2: "width"}


def export_onnx(job: ExportJob, path: Path) -> None:
    """Write `path`, with the weights beside it where they are large. Raises whatever torch.onnx raises.

    Graphs of one size go through `torch.export`, whose ONNX keeps attention and normalisation whole. It cannot follow
    the sizes of feature maps that decide shapes in detectors of any size, nor torchvision's NMS, nor fake quantisation:
    those are traced, and TorchScript files.
    A model that is an ONNX file already gets our stages around it.
    """
    if job.onnx_file is not None:
        source = job.checkpoint.source
        wrapped = wrap_onnx(job.onnx_file, job.checkpoint.preprocessing, job.task, source.output, source.inputs)
        onnx.save(wrapped, path)
        return
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = job.float_graph()
        if is_script(job):  # whose modules are to be traced before, or they are none of the graph's
            values = OutputValues(graph)
            graph = torch.jit.trace(values, (job.pixels,), check_trace=False)  # type: ignore[no-untyped-call]
        torch.onnx.export(
            graph,
            (job.pixels,),
            path,
            input_names=["pixels"],
            output_names=job.output_names,
            verbose=False,
            **_choose_options(job),
        )


class OutputValues(nn.Module):
    """A graph whose outputs are a tuple: the exporter of traced graphs knows no dict."""

    def __init__(self, graph: nn.Module) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.graph(pixels).values())


def is_script(job: ExportJob) -> bool:
    """Return whether the network is a TorchScript file, into which torch.export does not look."""
    return job.checkpoint.source.source == "torchscript"


def _choose_options(job: ExportJob) -> dict[str, Any]:
    if job.has_fixed_size and not job.is_quantized_already and not is_script(job):
        return {"dynamo": True, "dynamic_shapes": (dynamic_batch(),)}
    axes = {"pixels": DIMENSIONS, **{name: {0: "batch"} for name in job.output_names}}
    return {
        "dynamo": False,
        "opset_version": TRACED_OPSET,
        "dynamic_axes": axes if job.fixed_batch is None else {},
    }
