"""The hand-over between the steps: `exports/<name>/<backend>-<precision>/`, inspectable and restartable.

    <artifact>          what the backend loads
    model-config.yaml   what the handler reads
    labels.json         the label of each class id
    export.json         name, version, recipe: what the later steps need to know
    verification.json   written by verify_model.py

package_model.py refuses a folder whose verification.json is missing, failed, or of another artifact.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import yaml
from torch import nn

from image_classification import ImageClassificationHandler
from mar_tools.checkpoints import Checkpoint
from mar_tools.exporters import load_exporter
from mar_tools.exporters.base import ExportJob
from mar_tools.images import generate_images
from mar_tools.recipes import Recipe, VerificationRecipe
from object_detection import ObjectDetectionHandler
from vision_serving.config import HandlerConfig, Precision, StrictModel, Task, parse_config
from vision_serving.errors import ConfigError
from vision_serving.graphs import build_graph
from vision_serving.handler import VisionHandler

REFERENCE = "eager-fp32"
ENTRY_FILES: dict[Task, str] = {"classification": "image_classification.py", "detection": "object_detection.py"}
HANDLERS: dict[Task, type[VisionHandler]] = {
    "classification": ImageClassificationHandler,
    "detection": ObjectDetectionHandler,
}


class ExportManifest(StrictModel):
    """The content of `export.json`."""

    name: str
    version: str
    task: Task
    weights: str
    verification: VerificationRecipe


def export_folder(exports: Path, recipe: Recipe, backend: str, precision: str) -> Path:
    return exports / recipe.name / f"{backend}-{precision}"


def export_model(recipe: Recipe, checkpoint: Checkpoint, backend: str, precision: Precision, exports: Path) -> Path:
    """Write one export folder, whole or not at all. Raises BackendError or ConfigError."""
    exporter = load_exporter(backend, precision)
    network = checkpoint.torch_network(backend)
    graph = build_graph(network, recipe.task, checkpoint.preprocessing, checkpoint.source.output)
    check_label_count(graph, checkpoint)
    python_file = str(recipe.path(recipe.model.file)) if recipe.model.file else None
    job = ExportJob(graph, checkpoint, recipe.task, precision, python_file)
    with replaced_folder(export_folder(exports, recipe, backend, precision)) as folder:
        artifact = exporter.export(job, folder)
        write_model_config(folder / "model-config.yaml", recipe, checkpoint, backend, precision, artifact)
        (folder / "labels.json").write_bytes(orjson.dumps(checkpoint.labels))
        (folder / "export.json").write_bytes(
            orjson.dumps(_manifest(recipe).model_dump(mode="json"), option=orjson.OPT_INDENT_2)
        )
    return export_folder(exports, recipe, backend, precision)


def _manifest(recipe: Recipe) -> ExportManifest:
    images = recipe.verification.images
    absolute = None if images is None else recipe.path(images).absolute()
    return ExportManifest(
        name=recipe.name,
        version=recipe.version,
        task=recipe.task,
        weights=recipe.model.weights,
        verification=recipe.verification.model_copy(update={"images": absolute}),
    )


def check_label_count(graph: nn.Module, checkpoint: Checkpoint) -> None:
    """Run the graph once. Raises ConfigError when it fails, or has another number of classes than there are labels."""
    try:
        outputs = graph(generate_images(1, checkpoint.preprocessing))
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
        raise ConfigError(f"the model has {count} classes but there are {given} labels{hint}")


def write_model_config(
    path: Path, recipe: Recipe, checkpoint: Checkpoint, backend: str, precision: Precision, artifact: str
) -> None:
    """The archive's yaml: the `handler` section and timeouts. Workers and batching belong to config.properties."""
    handler = HandlerConfig(
        task=recipe.task,
        backend=backend,
        precision=precision,
        artifact=artifact,
        preprocessing=checkpoint.preprocessing,
        candidates_per_class=checkpoint.candidates_per_class,
        options=checkpoint.options,
        limits=recipe.limits,
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
    try:
        document = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise ConfigError(f"{path}: damaged ({error}); run export_model.py again") from error
    return parse_config(ExportManifest, document, str(path))


def hash_artifact(folder: Path, artifact: str) -> str:
    """SHA-256 over the names and bytes of an artifact: a file with its siblings of the same stem, or a folder."""
    target = folder / artifact
    files = sorted(target.rglob("*")) if target.is_dir() else sorted(folder.glob(f"{target.stem}.*"))
    digest = hashlib.sha256()
    for file in files:
        if file.is_file():
            digest.update(file.relative_to(folder).as_posix().encode() + b"\0")
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


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
