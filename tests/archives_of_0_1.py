"""Archives as three commits of version 0.1 packed them, from the texts in mar_tools/upkeep/of_0_1.

Each text is as `build_model.py` of that commit wrote it, of the digits example in eager fp32. The weights are those of
the example, which have not changed since, as the digest in `verification.json` says. Two things are not as they were:
the name of the model, so that one server takes all three, and the bill of materials, which has one package.
"""

import base64
import hashlib
import io
import subprocess
import tarfile
from pathlib import Path

import orjson

from mar_tools.archives.archive import DIGESTS, MANIFEST, SBOM
from mar_tools.archives.zip_form import write_archive

ROOT = Path(__file__).resolve().parents[1]
OF_0_1 = ROOT / "tests" / "mar_tools" / "upkeep" / "of_0_1"
WEIGHTS = ROOT / "examples" / "digits_classification" / "weights.safetensors"
KINDS = ("without_digests", "refused", "served")
NOT_PACKED = ("commit", "config.properties", "front.yaml")
PICTURE = ".base64"


def has_history() -> bool:
    """Return whether this clone has the commits. A shallow one has not."""
    return all(_git("cat-file", "-e", f"{commit_of(kind)}^{{commit}}").returncode == 0 for kind in KINDS)


def commit_of(kind: str) -> str:
    return (OF_0_1 / kind / "commit").read_text().strip()


def read_handlers(kind: str) -> dict[str, bytes]:
    """Return the files of `handlers/` of that commit, which every archive of it carries."""
    packed = _git("archive", "--format=tar", commit_of(kind), "handlers")
    assert packed.returncode == 0, packed.stderr
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as tree:
        files = {entry.name: tree.extractfile(entry) for entry in tree if entry.isfile()}
        return {name.removeprefix("handlers/"): file.read() for name, file in files.items() if file}


def pack(kind: str, handlers: dict[str, bytes], target: Path) -> Path:
    """Write an archive whose model is called as the file. handlers: what it carries as its code."""
    folder = OF_0_1 / kind
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    contents = {name: (folder / name).read_bytes() for name in names if name not in NOT_PACKED}
    contents = {
        name.removesuffix(PICTURE): base64.decodebytes(content) if name.endswith(PICTURE) else content
        for name, content in contents.items()
    }
    contents |= handlers | {"model/model.safetensors": WEIGHTS.read_bytes(), MANIFEST: _manifest(target.stem)}
    if kind != "without_digests":
        contents[SBOM] = orjson.dumps({"components": [{"name": "vision-serving", "version": "0.1.0"}]})
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
        contents[DIGESTS] = orjson.dumps({"sha256": digests})
    target.parent.mkdir(parents=True, exist_ok=True)
    write_archive(dict(sorted(contents.items())), target)
    return target


def _manifest(name: str) -> bytes:
    model = {"configFile": "model-config.yaml", "handler": "image_classification.py", "modelName": name}
    return orjson.dumps({"archiverVersion": "0.12.0", "model": model | {"modelVersion": "1.0"}, "runtime": "python"})


def _git(*arguments: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True)
