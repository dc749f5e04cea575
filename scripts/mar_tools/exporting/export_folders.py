"""The hand-over between the steps: `exports/<name>/<backend>-<precision>/`, inspectable and restartable.

    <artifact>          what the backend loads
    model-config.yaml   what the handler reads
    labels.json         the label of each class id
    export.json         name, version, recipe: what the later steps need to know
    verification.json   written by verify_model.py

package_model.py refuses a folder whose verification.json is missing, failed, or of another artifact.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import yaml
from pydantic import Field

from mar_tools.archives.digests import combine_digests, select_artifact
from mar_tools.exporting.calibration import Calibration
from mar_tools.exporting.exporters import EXPORTERS, load_exporter, onnx_precisions
from mar_tools.exporting.exporters.base import Exported, ExportJob
from mar_tools.models.checkpoints import Checkpoint
from mar_tools.models.pixels import load_pixels
from mar_tools.models.recipes import Recipe, VerificationRecipe
from vision_serving.backends.eager import read_artifact
from vision_serving.config import DeviceType, HandlerConfig, Precision, read_handler_config
from vision_serving.cores import cpu_features
from vision_serving.errors import BackendError, ConfigError, how_to_install
from vision_serving.graphs import build_graph
from vision_serving.labels import read_labels
from vision_serving.options import Instances, Task, check_options, find_options
from vision_serving.validation import StrictModel, parse_config, read_json
from vision_serving.worker.model_card import digest_file


class ExportManifest(StrictModel):
    """The content of `export.json`."""

    name: str
    version: str
    task: Task
    weights: str
    verification: VerificationRecipe
    quantization: dict[str, Any] = Field(default={})


def export_folder(exports: Path, recipe: Recipe, backend: str, precision: str, device_type: DeviceType = "cpu") -> Path:
    """One folder a candidate; `-cuda` at its end where it is for GPUs."""
    return exports / recipe.name / f"{backend}-{precision}{'' if device_type == 'cpu' else f'-{device_type}'}"


def export_model(
    recipe: Recipe,
    checkpoint: Checkpoint,
    backend: str,
    precision: Precision,
    exports: Path,
    device_type: DeviceType = "cpu",
) -> Path:
    """Write one export folder, whole or not at all. Raises BackendError or ConfigError."""
    exporter = load_exporter(backend, precision, device_type)
    job = _new_job(recipe, checkpoint, backend, precision, device_type)
    check_model_options(job)
    check_label_count(job)
    target = export_folder(exports, recipe, backend, precision, device_type)
    with replaced_folder(target) as folder:
        try:
            exported = exporter.export(job, folder)
        except ModuleNotFoundError as error:
            raise BackendError(f"{backend} {precision} needs {how_to_install(error)}") from error
        write_model_config(folder / "model-config.yaml", recipe, checkpoint, job, exported, backend)
        (folder / "labels.json").write_bytes(orjson.dumps(checkpoint.labels))
        manifest = _manifest(recipe, exported).model_dump(mode="json")
        (folder / "export.json").write_bytes(orjson.dumps(manifest, option=orjson.OPT_INDENT_2))
    return target


def _new_job(
    recipe: Recipe, checkpoint: Checkpoint, backend: str, precision: Precision, device_type: DeviceType
) -> ExportJob:
    if checkpoint.source.source == "onnx":
        check_takes_onnx(backend, precision)
    images = recipe.calibration.images
    return ExportJob(
        graph=build_graph(checkpoint.network, recipe.task, checkpoint.preprocessing, checkpoint.source.output).to(
            device_type
        ),
        checkpoint=checkpoint,
        task=recipe.task,
        precision=precision,
        device_type=device_type,
        calibration=Calibration(
            images=None if images is None else recipe.path(images),
            count=recipe.calibration.count,
            preprocessing=checkpoint.preprocessing,
            quantization=recipe.quantization,
            colours=recipe.colours,
        ),
        source_file=recipe.path(recipe.model.file) if recipe.model.file else None,
    )


def check_takes_onnx(backend: str, precision: Precision) -> None:
    """Check that a backend takes a model that is an ONNX file. Raises BackendError."""
    offered = onnx_precisions(backend)
    if not offered:
        takers = [name for name in EXPORTERS if onnx_precisions(name)]
        raise BackendError(f"backend {backend!r} needs a PyTorch network; the model is an ONNX file, for {takers}")
    if precision not in offered:
        raise BackendError(
            f"backend {backend!r} runs an ONNX file with the types that are in it, and not in {precision}; it has "
            f"{list(offered)}"
        )


def _manifest(recipe: Recipe, exported: Exported) -> ExportManifest:
    return ExportManifest(
        name=recipe.name,
        version=recipe.version,
        task=recipe.task,
        weights=recipe.model.weights,
        verification=recipe.verification.located_in(recipe.folder),
        quantization=dict(exported.quantization),
    )


def check_label_count(job: ExportJob) -> None:
    """Run the graph once. Raises ConfigError when it fails, or has another number of classes than there are labels."""
    graph, checkpoint = job.graph, job.checkpoint
    try:
        outputs = graph(load_pixels(1, checkpoint.preprocessing).to(job.device_type))
    except ConfigError:
        raise
    except Exception as error:  # the network may be the user's own
        raise ConfigError(f"the model failed on its first image: {type(error).__name__}: {error}") from error
    count = getattr(graph, "num_classes", None)
    if count is None:
        count = outputs["logits" if "logits" in outputs else "scores"].shape[-1]
    given = len(checkpoint.labels)
    if given != count:
        background = checkpoint.source.source == "torchvision" and "scores" in outputs
        hint = " (torchvision's detectors count the background as class 0: give it a label too)" if background else ""
        raise ConfigError(f"`labels`: the model has {count} classes but there are {given} labels{hint}")


def find_instances(job: ExportJob) -> Instances | None:
    """What the graph gives of an object beyond its box."""
    return getattr(job.graph, "instances", None)


def check_model_options(job: ExportJob) -> None:
    """Raises ConfigError for options that a request to this model cannot have, such as a form of masks it lacks."""
    try:
        check_options(find_options(job.task, find_instances(job)), job.checkpoint.options)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def write_model_config(
    path: Path, recipe: Recipe, checkpoint: Checkpoint, job: ExportJob, exported: Exported, backend: str
) -> None:
    """The archive's yaml: the `handler` section and timeouts. Workers and batching belong to config.properties."""
    present = cpu_features()
    handler = HandlerConfig(
        task=recipe.task,
        instances=find_instances(job),
        backend=backend,
        precision=job.precision,
        artifact=exported.artifact,
        device_type=None if exported.portable else job.device_type,
        cpu_features=tuple(feature for feature in exported.cpu_features if feature in present),
        preprocessing=checkpoint.preprocessing,
        candidates_per_class=checkpoint.candidates_per_class,
        options=checkpoint.options,
        limits=recipe.limits,
        colours=recipe.colours,
        scaled_decoding=recipe.scaled_decoding,
    )
    document = {
        "responseTimeout": recipe.response_timeout_s,
        "startupTimeout": recipe.startup_timeout_s,
        "handler": handler.model_dump(mode="json", exclude_none=True),
    }
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")


def read_manifest(folder: Path) -> ExportManifest:
    """Raises ConfigError when this is not an export folder."""
    path = folder / "export.json"
    if not path.is_file():
        raise ConfigError(f"{folder}: not an export folder (no export.json); run export_model.py first")
    return parse_config(ExportManifest, read_json(path, "run export_model.py again"), str(path))


def load_reference(folder: Path) -> Checkpoint:
    """The checkpoint as its eager fp32 export holds it, without whatever it once came from.

    Its python file, if it has one, is the copy in the artifact. Raises ConfigError or BackendError.
    """
    config = read_handler_config(folder / "model-config.yaml")
    if (config.backend, config.precision) != ("eager", "fp32"):
        found = f"{config.backend} {config.precision}"
        raise ConfigError(f"{folder}: {found}, which does not hold the checkpoint; expected an export of eager fp32")
    source, network = read_artifact(folder / config.artifact)
    return Checkpoint(
        network=network,
        source=source.network,
        labels=read_labels(folder / config.labels),
        preprocessing=source.preprocessing,
        options=config.options,
        candidates_per_class=config.candidates_per_class,
    )


def artifact_files(folder: Path, artifact: str) -> list[Path]:
    """An artifact's files, sorted: a file with its siblings of the same stem, or all in a folder."""
    found = (file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    return [folder / name for name in select_artifact(found, artifact)]


def hash_artifact(folder: Path, artifact: str) -> str:
    """SHA-256 over the names and bytes of an artifact's files."""
    files = artifact_files(folder, artifact)
    return combine_digests({file.relative_to(folder).as_posix(): digest_file(file) for file in files})


@contextmanager
def replaced_folder(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target` that takes its place at the end, or vanishes when something fails."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    temporary.chmod(0o755)  # mkdtemp makes it for the owner alone
    try:
        yield temporary
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
