"""Weights as safetensors beside the words that rebuild the network."""

import shutil
from pathlib import Path

import orjson
from safetensors.torch import save_file

from mar_tools.exporting.exporters.base import Exported, ExportJob, Precisions
from vision_serving.backends.eager import EagerSource

PRECISIONS: Precisions = {"cpu": {"bf16": 110, "fp32": 120}, "cuda": {"fp16": 110, "bf16": 120, "fp32": 180}}
ONNX_PRECISIONS = ("fp32",)
ARTIFACT = "model"


def export(job: ExportJob, folder: Path) -> Exported:
    artifact = folder / ARTIFACT
    artifact.mkdir()
    network_source = job.checkpoint.source
    if job.source_file is not None:
        files = [job.source_file]
        if job.onnx_file is not None:
            from mar_tools.exporting.onnx_files import find_external_weights  # needs a package that other models do not

            files += find_external_weights(job.onnx_file)
        for file in files:
            shutil.copyfile(file, artifact / file.name)
        network_source = network_source.model_copy(update={"file": job.source_file.name})
    source = EagerSource(task=job.task, preprocessing=job.checkpoint.preprocessing, network=network_source)
    document = source.model_dump(mode="json", by_alias=True)
    (artifact / "source.json").write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))
    # Cloned: safetensors refuses tensors that share memory, and tied weights load the same from two copies.
    trained = {} if network_source.holds_weights else job.checkpoint.network.state_dict()
    state = {name: values.detach().clone().contiguous() for name, values in trained.items()}
    save_file(state, artifact / "model.safetensors")
    return Exported(ARTIFACT, portable=job.precision == "fp32" and job.device_type == "cpu")
