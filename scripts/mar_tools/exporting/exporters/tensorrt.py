"""An engine that TensorRT builds from ONNX on the GPU that will run it, by timing kernels there.

A network has the types that its ONNX states: fp16 and bf16 are autocast's, int8 is where ONNX Runtime put QDQ pairs.
"""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import tensorrt
import torch
from torch import Tensor, nn

from mar_tools.exporting.exporters import onnxruntime
from mar_tools.exporting.exporters.base import Exported, ExportJob, Precisions
from mar_tools.exporting.onnx_export import export_onnx
from vision_serving.backends.tensorrt import Log, create, describe_gpu, require_gpu
from vision_serving.config import HandlerConfig
from vision_serving.errors import BackendError

PRECISIONS: Precisions = {"cuda": {"int8": 10, "fp16": 20, "bf16": 30, "fp32": 130}}
ONNX_PRECISIONS = ("fp32", "int8")
ARTIFACT = "model.engine"
SOURCE = "model.onnx"
OPTIMAL_BATCH = 8
MAX_BATCH = HandlerConfig.model_fields["max_images_per_inference"].default
MAX_BATCH_OF_ANY_SIZE = 4  # memory is set aside for the largest batch of the largest images
MIN_SIDE = 32

Shape = tuple[int, int, int, int]


def export(job: ExportJob, folder: Path) -> Exported:
    require_gpu()
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary) / SOURCE
        quantization = write_onnx(job, source)
        engine = build_engine(source, profile_shapes(job), allows_tf32=job.precision == "int8")
    (folder / ARTIFACT).write_bytes(engine)
    built_for = describe_gpu(torch.device(job.device_type)).model_dump(mode="json")
    (folder / ARTIFACT).with_suffix(".json").write_bytes(orjson.dumps(built_for))
    return Exported(ARTIFACT, quantization)


def write_onnx(job: ExportJob, path: Path) -> dict[str, Any]:
    """Return the ONNX file to build from; gives how int8 came about."""
    scheme = job.calibration.quantization.scheme
    if job.precision == "int8" and scheme == "dynamic":
        raise BackendError("tensorrt has no int8 scheme 'dynamic'; it has 'static' and 'checkpoint'")
    job = replace(job, graph=FloatInput(job.graph))
    if job.precision != "int8" or scheme == "checkpoint":
        export_onnx(job, path)
        return {}
    float_path = path.with_name("float.onnx")
    export_onnx(job, float_path)
    return onnxruntime.quantize_file(job, float_path, path, symmetric=True)


class FloatInput(nn.Module):
    """A graph whose first step makes pixels float: TensorRT does nothing else with uint8."""

    def __init__(self, graph: nn.Module) -> None:
        super().__init__()
        self.fp32_graph = graph

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        outputs: dict[str, Tensor] = self.fp32_graph(pixels.float())
        return outputs


def profile_shapes(job: ExportJob) -> tuple[Shape, Shape, Shape]:
    """Return the smallest, the most usual and the largest batch of pixels (N, H, W, 3)."""
    height, width = job.pixels.shape[1:3]
    if job.fixed_batch is not None:
        one = (job.fixed_batch, height, width, 3)
        return one, one, one
    if job.has_fixed_size:
        return (1, height, width, 3), (OPTIMAL_BATCH, height, width, 3), (MAX_BATCH, height, width, 3)
    resize = job.checkpoint.preprocessing.resize
    if not isinstance(resize.size, int) or resize.max_size is None:
        raise BackendError("tensorrt needs to know the largest images: set `max_size` in `preprocessing.resize`")
    shorter, longer = resize.size, max(resize.size, resize.max_size)
    return (1, MIN_SIDE, MIN_SIDE, 3), (1, shorter, longer, 3), (MAX_BATCH_OF_ANY_SIZE, longer, longer, 3)


def build_engine(source: Path, shapes: tuple[Shape, Shape, Shape], allows_tf32: bool) -> bytes:
    """Raises BackendError with what TensorRT says. It reads weights that lie beside `source`."""
    log = Log()
    builder = create(tensorrt.Builder, log)
    network = builder.create_network()
    parser = tensorrt.OnnxParser(network, log)
    if not parser.parse_from_file(str(source)):
        problems = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        raise BackendError(f"tensorrt cannot take this model: {(problems or [log.reason])[0][:300]}")
    config = builder.create_builder_config()
    if not allows_tf32:
        config.clear_flag(tensorrt.BuilderFlag.TF32)  # 10 bits of mantissa are not fp32
    profile = builder.create_optimization_profile()
    profile.set_shape(network.get_input(0).name, *shapes)
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise BackendError(f"tensorrt cannot build this model: {log.reason}")
    return bytes(engine)
