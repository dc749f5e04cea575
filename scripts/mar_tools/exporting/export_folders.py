"""An export folder, the hand-over between the steps: `exports/<name>/<backend>-<precision>/`.

    <artifact>          what the backend loads
    model-config.yaml   what the handler reads
    labels.json         the label of each class id
    export.json         name, version, recipe: what the later steps need to know
    verification.json   written by verify_model.py

Everything here names or reads one; `export.py` writes it. package_model.py refuses a folder whose verification.json
is missing, failed, or of another artifact.
"""

from pathlib import Path
from typing import Any

from pydantic import Field

from mar_tools.archives.digests import combine_digests, select_artifact
from mar_tools.models.checkpoints import Checkpoint
from mar_tools.models.recipes import BaselineRecipe, Recipe, VerificationRecipe
from vision_serving.backends.eager import read_artifact
from vision_serving.config import DeviceType, PreprocessingConfig, read_handler_config
from vision_serving.errors import ConfigError
from vision_serving.labels import read_labels
from vision_serving.options import Task
from vision_serving.validation import StrictModel, parse_config, read_json
from vision_serving.worker.model_card import digest_file

REFERENCE = "eager-fp32"  # the export that the others of a model are compared with


class ExportManifest(StrictModel):
    """The content of `export.json`. assumed, published: as of a Checkpoint."""

    name: str
    version: str
    task: Task
    weights: str
    verification: VerificationRecipe
    baseline: BaselineRecipe | None = None
    quantization: dict[str, Any] = Field(default={})
    assumed: tuple[str, ...] = ()
    published: PreprocessingConfig | None = None


def export_folder(exports: Path, recipe: Recipe, backend: str, precision: str, device_type: DeviceType = "cpu") -> Path:
    """Return the folder of a candidate. Its name ends in `-cuda` where it is for GPUs."""
    return exports / recipe.name / f"{backend}-{precision}{'' if device_type == 'cpu' else f'-{device_type}'}"


def read_manifest(folder: Path) -> ExportManifest:
    """Read `export.json`. Raises ConfigError when this is not an export folder."""
    path = folder / "export.json"
    if not path.is_file():
        raise ConfigError(f"{folder}: not an export folder (no export.json); run export_model.py first")
    return parse_config(ExportManifest, read_json(path, "run export_model.py again"), str(path))


def load_reference(folder: Path) -> Checkpoint:
    """Load the checkpoint from its eager fp32 export alone. Raises ConfigError or BackendError."""
    config = read_handler_config(folder / "model-config.yaml")
    if (config.backend, config.precision) != ("eager", "fp32"):
        found = f"{config.backend} {config.precision}"
        raise ConfigError(f"{folder}: {found}, which does not hold the checkpoint; expected an export of eager fp32")
    source, network = read_artifact(folder / config.artifact)
    manifest = read_manifest(folder)
    return Checkpoint(
        network=network,
        source=source.network.located_in(folder / config.artifact),
        labels=read_labels(folder / config.labels),
        preprocessing=source.preprocessing,
        options=config.options,
        candidates_per_class=config.candidates_per_class,
        folder=folder / config.artifact,
        assumed=manifest.assumed,
        published=manifest.published,
    )


def artifact_files(folder: Path, artifact: str) -> list[Path]:
    """Return an artifact's files, sorted: a file with its siblings of the same stem, or all in a folder."""
    found = (file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    return [folder / name for name in select_artifact(found, artifact)]


def hash_artifact(folder: Path, artifact: str) -> str:
    """Return the SHA-256 over the names and bytes of an artifact's files."""
    files = artifact_files(folder, artifact)
    return combine_digests({file.relative_to(folder).as_posix(): digest_file(file) for file in files})
