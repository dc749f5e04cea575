"""Pack a verified export with `handlers/` into a `.mar`, byte for byte the same each time."""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import orjson

from mar_tools.archive import MANIFEST
from mar_tools.conventions import ENTRY_FILES
from mar_tools.exports import read_manifest
from mar_tools.verification import require_verified
from vision_serving.errors import ConfigError

NOT_PACKED = shutil.ignore_patterns("__pycache__", "*.pyc", "*.egg-info", "*.orig", "*.rej", "*~", ".*")
NOT_HANDED_OVER = shutil.ignore_patterns("export.json", "model-config.yaml")
FIXED_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that zip can say
FIXED_CREATION = "01/01/1980 00:00:00"
FIXED_MODE = 0o100644 << 16


def build_archive(export_folder: Path, handlers: Path, model_store: Path, entry_file: str | None = None) -> Path:
    """Write `<model_store>/<name>.mar`, whole or not at all. Raises ConfigError for an export that is not verified.

    entry_file: another one in `handlers` than that of the task.
    """
    manifest = read_manifest(export_folder)
    require_verified(export_folder)
    model_store.mkdir(parents=True, exist_ok=True)
    target = model_store / f"{manifest.name}.mar"
    with tempfile.TemporaryDirectory(prefix=".packing-", dir=model_store) as temporary:
        content = Path(temporary) / "content"
        shutil.copytree(handlers, content, ignore=NOT_PACKED)
        shutil.copytree(export_folder, content, ignore=NOT_HANDED_OVER, dirs_exist_ok=True)
        entry = content / (entry_file or ENTRY_FILES[manifest.task])
        config_file = export_folder / "model-config.yaml"
        packed = _run_archiver(manifest.name, manifest.version, entry, config_file, Path(temporary))
        normalise_archive(packed, Path(temporary) / target.name)
        os.replace(Path(temporary) / target.name, target)
    return target


def _run_archiver(name: str, version: str, entry_file: Path, config_file: Path, temporary: Path) -> Path:
    output, scratch = temporary / "packed", temporary / "scratch"
    output.mkdir()
    scratch.mkdir()
    command = [sys.executable, "-m", "model_archiver.model_packaging", "--model-name", name, "--version", version]
    command += ["--handler", str(entry_file), "--extra-files", str(entry_file.parent)]
    command += ["--config-file", str(config_file), "--export-path", str(output)]
    # The archiver deletes $TMPDIR/<name> before it starts: give it a folder of its own.
    environment = {**os.environ, "TMPDIR": str(scratch)}
    finished = subprocess.run(command, env=environment, capture_output=True, text=True)
    packed = output / f"{name}.mar"
    if finished.returncode != 0 or not packed.is_file():
        lines = finished.stderr.strip().splitlines()
        raise ConfigError(f"torch-model-archiver failed: {lines[-1] if lines else 'no output'}")
    return packed


def normalise_archive(source: Path, target: Path) -> None:
    """Rewrite a zip with sorted names, fixed times and modes, uncompressed."""
    with zipfile.ZipFile(source) as packed, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as normalised:
        for name in sorted(entry for entry in packed.namelist() if not entry.endswith("/")):
            data = packed.read(name)
            if name == MANIFEST:
                manifest = orjson.loads(data)
                manifest["createdOn"] = FIXED_CREATION
                data = orjson.dumps(manifest, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
            entry = zipfile.ZipInfo(name, FIXED_TIME)
            entry.external_attr = FIXED_MODE
            normalised.writestr(entry, data)
