"""A torch graph as an ONNX file, with a dynamic batch, and dynamic height and width where the model takes any."""

import logging
import warnings
from pathlib import Path
from typing import Any

import onnx
import torch

from mar_tools.exporting.exporters.base import ExportJob
from mar_tools.exporting.onnx_models import wrap_onnx
from mar_tools.exporting.torch_programs import dynamic_batch

TRACED_OPSET = 20
DIMENSIONS = {0: "batch", 1: "height", 2: "width"}


def export_onnx(job: ExportJob, path: Path) -> None:
    """Write `path`, with the weights beside it where they are large. Raises whatever torch.onnx raises.

    Graphs of one size go through `torch.export`, whose ONNX keeps attention and normalisation whole. It cannot follow
    the sizes of feature maps that decide shapes in detectors of any size, nor torchvision's NMS, nor fake quantisation:
    those are traced.
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
        torch.onnx.export(
            job.float_graph(),
            (job.pixels,),
            path,
            input_names=["pixels"],
            output_names=job.output_names,
            verbose=False,
            **(_program_options() if job.has_fixed_size and not job.is_quantized_already else _trace_options(job)),
        )


def _program_options() -> dict[str, Any]:
    return {"dynamo": True, "dynamic_shapes": (dynamic_batch(),)}


def _trace_options(job: ExportJob) -> dict[str, Any]:
    axes = {"pixels": DIMENSIONS, **{name: {0: "batch"} for name in job.output_names}}
    return {"dynamo": False, "opset_version": TRACED_OPSET, "dynamic_axes": axes}
