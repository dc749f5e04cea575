"""A traced and frozen graph. Traced, not scripted: our graphs keep batch, height and width symbolic in a trace."""

import warnings
from pathlib import Path

import torch

from mar_tools.exporting.exporters.base import Exported, ExportJob, Precisions
from vision_serving.backends.torchscript import OPERATORS_ENTRY

PRECISIONS: Precisions = {"cpu": {"bf16": 90, "fp32": 100}, "cuda": {"fp16": 90, "bf16": 100, "fp32": 170}}
ARTIFACT = "model.pt"


def export(job: ExportJob, folder: Path) -> Exported:
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's: every shape that it sees may be a constant
        traced = torch.jit.trace(  # type: ignore[no-untyped-call]
            job.float_graph(), (job.pixels,), strict=False, check_trace=False
        )
        frozen = torch.jit.freeze(traced)
    operators = "torchvision" if "torchvision::" in str(frozen.inlined_graph) else ""
    torch.jit.save(frozen, folder / ARTIFACT, _extra_files={OPERATORS_ENTRY: operators})
    return Exported(ARTIFACT, cpu_features=("bf16",) if job.precision == "bf16" else ())
