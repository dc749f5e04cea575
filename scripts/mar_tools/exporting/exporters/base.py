"""What every exporter states, what it is given, and what it tells about its artifact."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mar_tools.exporting.calibration import Calibration
from mar_tools.models.checkpoints import Checkpoint
from mar_tools.models.example_pixels import example_pixels, is_fixed_size
from vision_serving.config import DeviceType, Precision
from vision_serving.errors import BackendError
from vision_serving.graphs.precisions import in_precision
from vision_serving.options import Activation, Task

# `PRECISIONS` of an exporter: what it can make for each kind of device. The number is the rank of that backend and
# precision among all: a build tries the lowest first, and may run out of its time budget.
Precisions = Mapping[DeviceType, Mapping[Precision, int]]


@dataclass(frozen=True)
class ExportJob:
    """A fp32 graph in eval mode on the device, the checkpoint that it was built from, and what to export it to.

    fixed_batch: how many images the graph takes at a time; None where it takes any number.
    """

    graph: nn.Module
    checkpoint: Checkpoint
    task: Task
    precision: Precision
    device_type: DeviceType
    calibration: Calibration
    fixed_batch: int | None = None

    @property
    def onnx_file(self) -> Path | None:
        """Return the user's model where it is an ONNX file; the graph then only runs it, and cannot be traced."""
        source = self.checkpoint.source
        return self.checkpoint.folder / str(source.file) if source.source == "onnx" else None

    @cached_property
    def pixels(self) -> Tensor:
        """Return images uint8 (N, H, W, 3) on the device, to trace with: two, or as many as the graph takes."""
        pixels = example_pixels(self.checkpoint.preprocessing)
        numbers = torch.arange(self.fixed_batch or len(pixels)) % len(pixels)
        return pixels[numbers].to(self.device_type)

    @cached_property
    def output_names(self) -> list[str]:
        return list(self.graph(self.pixels))

    @property
    def activation(self) -> Activation | None:
        """Return what makes scores of a classifier's logits, None where nothing is said."""
        return self.checkpoint.source.output.class_activation(self.task)

    @property
    def float_layers(self) -> tuple[str, ...]:
        """Return the modules of our own graphs that int8 would always spoil."""
        return getattr(self.graph, "float_layers", ())

    @property
    def has_fixed_size(self) -> bool:
        """Return whether all batches share one height and width; else both are dynamic in the artifact."""
        return is_fixed_size(self.checkpoint.preprocessing)

    @property
    def is_quantized_already(self) -> bool:
        """Return whether int8 is to be what fake quantisation in the network says, with the scales of its training."""
        return self.precision == "int8" and self.calibration.quantization.scheme == "checkpoint"

    def float_graph(self) -> nn.Module:
        """Return the graph computing in the precision that was asked for; in fp32 for int8, to be quantised."""
        return in_precision(self.graph, self.precision, self.device_type)


@dataclass(frozen=True)
class Exported:
    """`artifact`: the file or folder in the export folder. Further files stand in the folder, or share the file's stem.

    `quantization`: how int8 came about, for the report. `cpu_features`: what the verified answers depend on.
    `portable`: whether it runs on other devices too.
    """

    artifact: str
    quantization: Mapping[str, Any] = field(default_factory=dict)
    cpu_features: tuple[str, ...] = ()
    portable: bool = False


def require_python_network(job: ExportJob) -> None:
    """Raises BackendError for a TorchScript file: torch.compile and torch.export read networks of Python alone."""
    if job.checkpoint.source.source == "torchscript":
        raise BackendError(
            "torch.compile and torch.export need a network of Python, and the model is a TorchScript file; use "
            "openvino, onnxruntime or torchscript"
        )


def report_own_scales(operators: Iterable[str], wanted: str) -> dict[str, Any]:
    """Return the report of a network trained with fake quantisation. Raises BackendError where none arrived."""
    if wanted not in operators:
        raise BackendError(
            "quantization scheme 'checkpoint' needs a network with fake quantisation (torch.fake_quantize_per_...); "
            "this one has none: use scheme static"
        )
    return {"scheme": "checkpoint"}
