"""Pack a verified export with `handlers/` into a `.mar`, byte for byte the same each time.

torch-model-archiver writes the manifest; what it packed is written anew in the one form that zip_form.py knows, with
the digests of all files and a bill of materials, and has to pass the checks of every archive of ours.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import orjson

from mar_tools.archives.archive import DIGESTS, MANIFEST, SBOM
from mar_tools.archives.checks import verify_archive
from mar_tools.archives.zip_form import write_archive
from mar_tools.building.sbom import describe_environment
from mar_tools.exporting.export_folders import read_manifest
from mar_tools.models.handlers_by_task import find_entry_file
from mar_tools.verification.gate import require_verified
from vision_serving.errors import ConfigError

NOT_PACKED = shutil.ignore_patterns("__pycache__", "*.pyc", "*.egg-info", "*.orig", "*.rej", "*~", ".*")
NOT_HANDED_OVER = shutil.ignore_patterns("export.json", "model-config.yaml")
FIXED_CREATION = "01/01/1980 00:00:00"


def build_archive(export_folder: Path, handlers: Path, model_store: Path, entry_file: str | None = None) -> Path:
    """Write `<model_store>/<name>.mar`, whole or not at all. Raises ConfigError for an export that is not verified,
    and for one that would not pass the checks of archives/checks.py, such as with a key of its own in its yaml.

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
        entry = content / (entry_file or find_entry_file(manifest.task))
        config_file = export_folder / "model-config.yaml"
        packed = _run_archiver(manifest.name, manifest.version, entry, config_file, Path(temporary))
        normalise_archive(packed, Path(temporary) / target.name)
        verify_archive(Path(temporary) / target.name)
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
    """Rewrite what the archiver wrote in our form, with DIGESTS.json and a bill of materials."""
    with zipfile.ZipFile(source) as packed:
        contents = {name: packed.read(name) for name in packed.namelist() if not name.endswith("/")}
    manifest = {**orjson.loads(contents[MANIFEST]), "createdOn": FIXED_CREATION}
    contents[MANIFEST] = _encode(manifest)
    contents[SBOM] = describe_environment()
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    contents[DIGESTS] = _encode({"sha256": digests})
    write_archive(contents, target)


def _encode(document: object) -> bytes:
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
