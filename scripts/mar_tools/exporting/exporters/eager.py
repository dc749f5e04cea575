"""Weights as safetensors beside the words that rebuild the network."""

import shutil
from pathlib import Path

import orjson
from safetensors.torch import save_file

from mar_tools.exporting.exporters.base import Exported, ExportJob, Precisions
from vision_serving.backends.eager import EagerSource
from vision_serving.errors import ConfigError
from vision_serving.graphs.python_files import list_files
from vision_serving.graphs.sources import NetworkSource

PRECISIONS: Precisions = {"cpu": {"bf16": 110, "fp32": 120}, "cuda": {"fp16": 110, "bf16": 120, "fp32": 180}}
ONNX_PRECISIONS = ("fp32",)
ARTIFACT = "model"


def export(job: ExportJob, folder: Path) -> Exported:
    artifact = folder / ARTIFACT
    artifact.mkdir()
    network_source = copy_sources(job, artifact)
    source = EagerSource(task=job.task, preprocessing=job.checkpoint.preprocessing, network=network_source)
    document = source.model_dump(mode="json", by_alias=True)
    (artifact / "source.json").write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))
    # Cloned: safetensors refuses tensors that share memory, and tied weights load the same from two copies.
    trained = {} if network_source.holds_weights else job.checkpoint.network.state_dict()
    state = {name: values.detach().clone().contiguous() for name, values in trained.items()}
    save_file(state, artifact / "model.safetensors")
    return Exported(ARTIFACT, portable=job.precision == "fp32" and job.device_type == "cpu")


def copy_sources(job: ExportJob, artifact: Path) -> NetworkSource:
    """Copy the files that rebuild the network and read its answer; return the source that names them there."""
    source, output = job.checkpoint.source, job.checkpoint.source.output
    files: dict[str, Path] = {}
    if source.source == "python":
        files = list_files(job.checkpoint.folder, str(source.file))
    elif source.file is not None:
        files = {Path(source.file).name: job.checkpoint.folder / source.file}
    if source.file is not None:
        source = source.model_copy(update={"file": next(iter(files))})
    if job.onnx_file is not None:
        from mar_tools.models.onnx_weights import find_external_weights  # needs a package that other models do not

        files.update({file.name: file for file in find_external_weights(job.onnx_file)})
    if output.decode is not None:
        decoding = list_files(output.folder, output.decode)
        source = source.model_copy(update={"output": output.model_copy(update={"decode": next(iter(decoding))})})
        for name, file in decoding.items():
            if not files.setdefault(name, file).samefile(file):
                raise ConfigError(f"{files[name]} and {file} have one name in the archive; rename one of them")
    for name, file in files.items():
        (artifact / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, artifact / name)
    return source
