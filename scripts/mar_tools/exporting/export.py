"""Export a model for one backend and precision: the artifact, and all that a worker and the next steps need."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import yaml

from mar_tools.exporting.calibration import Calibration
from mar_tools.exporting.export_folders import ExportManifest, artifact_files, export_folder
from mar_tools.exporting.exporters import EXPORTERS, load_exporter, onnx_precisions
from mar_tools.exporting.exporters.base import Exported, ExportJob
from mar_tools.models.checkpoints import Checkpoint
from mar_tools.models.example_pixels import load_pixels
from mar_tools.models.recipes import Recipe
from vision_serving.config import DeviceType, HandlerConfig, Precision
from vision_serving.cores import cpu_features
from vision_serving.errors import BackendError, ConfigError, how_to_install, last_line
from vision_serving.graphs.construction import build_graph
from vision_serving.graphs.fixed_batches import FixedBatchNetwork
from vision_serving.options import check_options, find_options

INTERPRETER = "TorchScript interpreter"  # begins a traceback of its own, of a page, with the reason at its end


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
    job = new_job(recipe, checkpoint, backend, precision, device_type)
    try:
        check_options(
            find_options(recipe.task, getattr(job.graph, "instances", None), job.activation), checkpoint.options
        )
    except ValueError as error:  # a default option that this model cannot have
        raise ConfigError(str(error)) from error
    check_outputs(job)
    target = export_folder(exports, recipe, backend, precision, device_type)
    with replaced_folder(target) as folder:
        try:
            exported = exporter.export(job, folder)
        except ModuleNotFoundError as error:
            raise BackendError(f"{backend} {precision} needs {how_to_install(error)}") from error
        require_hashed(folder, exported.artifact)
        write_model_config(folder / "model-config.yaml", recipe, checkpoint, job, exported, backend)
        (folder / "labels.json").write_bytes(orjson.dumps(checkpoint.labels))
        write_manifest(folder / "export.json", recipe, checkpoint, exported)
    return target


def require_hashed(folder: Path, artifact: str) -> None:
    """Require that the hash of an artifact covers all that its exporter wrote. Raises BackendError."""
    written = {path for path in folder.rglob("*") if path.is_file()}
    left_out = sorted(path.relative_to(folder).as_posix() for path in written - set(artifact_files(folder, artifact)))
    if left_out:
        raise BackendError(
            f"the exporter wrote {left_out} beside its artifact {artifact!r}, and no hash covers them; it must name "
            "each file as the artifact with another suffix, or write a folder"
        )


def new_job(
    recipe: Recipe, checkpoint: Checkpoint, backend: str, precision: Precision, device_type: DeviceType
) -> ExportJob:
    """Return what an exporter is given. Raises BackendError for a model that the backend does not take."""
    source = checkpoint.source
    if source.source == "onnx":
        check_takes_onnx(backend, precision)
    images, network = recipe.calibration.images, checkpoint.network
    fixed_batch = None if backend == "eager" else find_fixed_batch(checkpoint)
    if fixed_batch is not None and isinstance(network, FixedBatchNetwork):
        network = network.network
    return ExportJob(
        graph=build_graph(network, recipe.task, checkpoint.preprocessing, source.output, source.inputs).to(device_type),
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
            batch=fixed_batch or 1,
        ),
        fixed_batch=fixed_batch,
    )


def find_fixed_batch(checkpoint: Checkpoint) -> int | None:
    """Return how many images a model takes at a time, None where it takes any number."""
    if checkpoint.source.source != "onnx":
        return checkpoint.source.fixed_batch
    from mar_tools.exporting import onnx_files  # needs a package that other models do not

    return onnx_files.find_fixed_batch(checkpoint.folder / str(checkpoint.source.file))


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


def describe_failure(error: Exception) -> str:
    """Return the type and text of a network's error; of TorchScript, whose text is a traceback, its last line."""
    return last_line(error) if INTERPRETER in str(error) else f"{type(error).__name__}: {error}"


def check_outputs(job: ExportJob) -> None:
    """Run the graph once. Raises ConfigError when it fails, or has another number of classes than there are labels."""
    graph, checkpoint = job.graph, job.checkpoint
    pixels = load_pixels(1, checkpoint.preprocessing).repeat(job.fixed_batch or 1, 1, 1, 1)
    try:
        outputs = graph(pixels.to(job.device_type))
    except ConfigError:
        raise
    except Exception as error:  # the network may be the user's own
        raise ConfigError(
            f"the model failed on its first image: {describe_failure(error)}; `preprocessing` gave it "
            f"{checkpoint.preprocessing.channels} channels of {pixels.shape[1]} x {pixels.shape[2]} pixels, which have "
            "to be those of its training (gray is `channels: 1`)"
        ) from error
    if "embedding" in outputs:
        return
    count = getattr(graph, "num_classes", None)
    given = len(checkpoint.labels)
    if count is None and "class_ids" in outputs:  # one class a box: nothing tells how many there are
        count = max(given, int(outputs["class_ids"].max()) + 1)
    if count is None:
        count = outputs["logits" if "logits" in outputs else "scores"].shape[-1]
    if given != count:
        background = checkpoint.source.source == "torchvision" and "scores" in outputs
        hint = " (torchvision's detectors count the background as class 0: give it a label too)" if background else ""
        raise ConfigError(f"`labels`: the model has {count} classes but there are {given} labels{hint}")


def write_model_config(
    path: Path, recipe: Recipe, checkpoint: Checkpoint, job: ExportJob, exported: Exported, backend: str
) -> None:
    """Write the archive's yaml: the `handler` section and timeouts. config.properties has workers and batching."""
    present = cpu_features()
    handler = HandlerConfig(
        task=recipe.task,
        instances=getattr(job.graph, "instances", None),
        activation=job.activation,
        backend=backend,
        precision=job.precision,
        artifact=exported.artifact,
        fixed_batch=job.fixed_batch,
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


def write_manifest(path: Path, recipe: Recipe, checkpoint: Checkpoint, exported: Exported) -> None:
    """Write what the later steps need to know of the recipe."""
    manifest = ExportManifest(
        name=recipe.name,
        version=recipe.version,
        task=recipe.task,
        weights=recipe.model.weights,
        verification=recipe.verification.located_in(recipe.folder),
        baseline=recipe.baseline,
        quantization=dict(exported.quantization),
        assumed=checkpoint.assumed,
        published=checkpoint.published,
    )
    path.write_bytes(orjson.dumps(manifest.model_dump(mode="json"), option=orjson.OPT_INDENT_2))


@contextmanager
def replaced_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `target` that takes its place at the end, or vanishes when something fails."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    temporary.chmod(0o755)  # mkdtemp makes it for the owner alone
    try:
        yield temporary
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
