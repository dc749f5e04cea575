"""A recipe's model as a folder for a phone, a board or a browser, verified by the format's own runtime."""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mar_tools.command_line import Announce
from mar_tools.edge.documents import check_can_leave, describe_model, write_documents
from mar_tools.edge.formats import load_format
from mar_tools.edge.readme import write_readme
from mar_tools.edge.verifying import verify_folder
from mar_tools.exporting.export import export_model, new_job, replaced_folder
from mar_tools.models.checkpoints import load_checkpoint
from mar_tools.models.handlers_by_task import new_handler
from mar_tools.models.recipes import Recipe
from mar_tools.verification.labelled import read_verification_images
from vision_serving.config import HandlerConfig, Precision, read_handler_config
from vision_serving.errors import ConfigError
from vision_serving.labels import read_labels
from vision_serving.options import Options

CARRIED = Path(__file__).parent / "carried"
WRITTEN = ("model.json", "preprocessing.json", "options.json", "verification.json")  # of each folder that is whole
KEEP_SCALES = ("onnx-web", "ort")  # formats that take the scales of a network that was trained for int8
TARGET_SNR_DB = 32.0  # of int8: layers stay in float until the calibration pictures have it


def export_edge(recipe: Recipe, form: str, precision: Precision, output: Path, announce: Announce) -> dict[str, Any]:
    """Write the folder `output`, whole or not at all, and return its verification. Raises ConfigError, BackendError."""
    module = load_format(form, precision)
    require_replaceable(output)
    if recipe.model.fake_quantization is not None and (precision != "int8" or form not in KEEP_SCALES):
        raise ConfigError(
            f"{recipe.name}: it was trained with the values of int8; give --precision int8 with --format "
            f"{' or '.join(KEEP_SCALES)}, which keep them"
        )
    checkpoint = load_checkpoint(recipe)
    with tempfile.TemporaryDirectory() as temporary, replaced_folder(output) as folder:
        announce("eager fp32, to compare with")
        reference = export_model(recipe, checkpoint, "eager", "fp32", Path(temporary))
        config = read_handler_config(reference / "model-config.yaml")
        labels = list(read_labels(reference / config.labels))
        options = read_default_options(config, labels)
        check_can_leave(config, options)
        images = read_verification_images(recipe.verification.located_in(recipe.folder), config, labels)
        job = new_job(
            recipe, checkpoint, "onnxruntime" if checkpoint.source.source == "onnx" else "eager", precision, "cpu"
        )
        job = replace(job, calibration=replace(job.calibration, target_snr_db=TARGET_SNR_DB))
        announce(f"{form} {precision}")
        written = module.write(job, folder, announce)
        config = config.model_copy(
            update={"precision": precision, "artifact": written.artifact, "fixed_batch": written.batch}
        )
        model = describe_model(recipe.name, recipe.version, form, config, written, job.output_names)
        write_documents(folder, model, config, options, labels)
        for source, name in module.CARRIED.items():
            shutil.copyfile(CARRIED / source, folder / name)
        if config.task == "detection" and "vision.mjs" not in module.CARRIED:  # which has it
            shutil.copytree(CARRIED / "detections", folder, dirs_exist_ok=True)
        announce("verify")
        with module.open_runtime(folder, announce) as runtime:
            report = verify_folder(folder, recipe, config, labels, runtime, images, reference)
        write_readme(folder, model, report)
    return report


def read_default_options(config: HandlerConfig, labels: Sequence[str]) -> Options:
    """Return the options that every answer has, with labels as class ids."""
    handler = new_handler(config.task)
    handler.config, handler.labels = config, labels
    return handler.read_options({})


def require_replaceable(output: Path) -> None:
    """Raises ConfigError for a folder that holds something else than an earlier export."""
    if output.exists() and not output.is_dir():
        raise ConfigError(f"{output}: a file; --output expects a folder")
    if output.is_dir() and any(output.iterdir()) and not all((output / name).is_file() for name in WRITTEN):
        raise ConfigError(f"{output}: holds something else; --output expects a new or empty folder, or an earlier one")
