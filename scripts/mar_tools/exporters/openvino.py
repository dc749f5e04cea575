"""OpenVINO IR with fp32 weights; bf16 is how the same graph is computed, chosen when it is loaded."""

import warnings
from pathlib import Path

import openvino
import torch

from mar_tools.exporters.base import ExportJob
from mar_tools.images import example_pixels, is_fixed_size
from vision_serving.errors import BackendError

PRECISIONS = ("bf16", "fp32")
ARTIFACT = "model.xml"


def export(job: ExportJob, folder: Path) -> str:
    """Traced by OpenVINO's converter, with a dynamic batch, and dynamic height and width where the model takes any."""
    preprocessing = job.checkpoint.preprocessing
    pixels = example_pixels(preprocessing)
    height, width = pixels.shape[1:3] if is_fixed_size(preprocessing) else (-1, -1)
    try:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the tracer's warnings: every shape that it sees may be a constant
            names = list(job.graph(pixels))
            model = openvino.convert_model(
                job.graph,
                example_input=(pixels,),
                input=[(openvino.PartialShape([-1, height, width, 3]), openvino.Type.u8)],
            )
    except Exception as error:  # the converter raises all sorts: each means that this graph is not for OpenVINO
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise BackendError(f"openvino cannot convert this model ({reason[:200]}); use --backend eager") from error
    model.inputs[0].set_names({"pixels"})
    for output, name in zip(model.outputs, names, strict=True):
        output.set_names({name})
    model.set_friendly_name("graph")  # the converter's names count up from call to call
    for index, node in enumerate(model.get_ordered_ops()):
        node.set_friendly_name(f"{node.get_type_name()}_{index}")
    openvino.save_model(model, folder / ARTIFACT, compress_to_fp16=False)
    return ARTIFACT
