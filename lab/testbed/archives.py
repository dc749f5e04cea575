"""The archives that faults are tried on: the digits classifier of examples/, and an entry file that fails on demand."""

import io
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import orjson
import PIL.Image

from lab.testbed import faulty_classification
from mar_tools.building.packing import build_archive
from mar_tools.command_line import HANDLERS, ROOT
from mar_tools.exporting.export import export_model
from mar_tools.models.checkpoints import load_checkpoint
from mar_tools.models.recipes import read_recipe
from mar_tools.verification.gate import verify_export

RECIPE = ROOT / "examples" / "digits_classification" / "recipe.yaml"
SERVED, BESIDE, BROKEN = "digits", "beside", "broken"  # the names of the models
RESPONSE_TIMEOUT_S = 5
REASON = "this archive was made so that it cannot load"
SIZE = (96, 96)  # of the model: a picture of that size is not resized, and keeps its colour


@dataclass(frozen=True)
class Archives:
    """One model three times: `served` fails on demand, so does `beside`, `broken` cannot load, for REASON."""

    export: Path
    served: Path
    beside: Path
    broken: Path


def build_archives(folder: Path) -> Archives:
    """Return the model, packed three times."""
    export = export_served(folder)
    handlers = copy_handlers(folder, Path(faulty_classification.__file__))
    served, beside = (_pack(export, handlers, folder, name) for name in (SERVED, BESIDE))
    (handlers / faulty_classification.CANNOT_LOAD).write_text(REASON, encoding="utf-8")
    return Archives(export, served, beside, _pack(export, handlers, folder, BROKEN))


def export_served(folder: Path) -> Path:
    """Export in eager fp32, which every CPU runs, and verify."""
    recipe = read_recipe(RECIPE, backend="eager", precision="fp32")
    recipe = recipe.model_copy(update={"response_timeout_s": RESPONSE_TIMEOUT_S})
    export = export_model(recipe, load_checkpoint(recipe), "eager", "fp32", folder / "exports")
    verify_export(export)
    return export


def copy_handlers(folder: Path, entry_file: Path) -> Path:
    """Return what an archive holds, with one more entry file."""
    handlers = folder / "handlers"
    shutil.copytree(HANDLERS, handlers, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(entry_file, handlers)
    return handlers


def _pack(export: Path, handlers: Path, folder: Path, name: str) -> Path:
    named = folder / name
    shutil.copytree(export, named)
    manifest = orjson.loads((named / "export.json").read_bytes())
    (named / "export.json").write_bytes(orjson.dumps({**manifest, "name": name}))
    return build_archive(named, handlers, folder / "archives", Path(faulty_classification.__file__).name)


def picture_of(fault: Callable[[], None]) -> bytes:
    """Return the picture that makes the archive do it."""
    (colour,) = (colour for colour, function in faulty_classification.FAULTS.items() if function is fault)
    buffer = io.BytesIO()
    PIL.Image.new("RGB", SIZE, colour).save(buffer, "PNG")
    return buffer.getvalue()
