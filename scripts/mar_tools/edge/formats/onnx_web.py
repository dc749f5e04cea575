"""ONNX with a page that runs it in a browser by onnxruntime-web, whose files npm brings into the folder."""

import tarfile
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path

import onnx

from mar_tools.command_line import Announce
from mar_tools.edge.browser import open_browser
from mar_tools.edge.environments import find_cache, run_client
from mar_tools.edge.formats.base import Written
from mar_tools.edge.formats.onnx_weights import export_onnx_file
from mar_tools.edge.running import EdgeModel
from mar_tools.exporting.exporters.base import ExportJob
from vision_serving.errors import BackendError
from vision_serving.worker.model_card import digest_file

PRECISIONS = ("fp32", "int8")
REQUIREMENTS = "edge"
CARRIED = {"index.html": "index.html", "vision.mjs": "vision.mjs"}
ARTIFACT = "model.onnx"
MOST_BYTES = 2**31 - 1  # of a file of this format
PACKAGE = "onnxruntime-web"
VERSION = "1.30.0"
SHA256 = "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"
FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")


def write(job: ExportJob, folder: Path, announce: Announce) -> Written:
    """Export as a build does, and bring the browser's runtime. Raises BackendError without npm."""
    with tempfile.TemporaryDirectory() as temporary:
        exported = export_onnx_file(job, Path(temporary))
        model = onnx.load(Path(temporary) / exported.artifact)
    if model.ByteSize() > MOST_BYTES:
        raise BackendError(f"format 'onnx-web': the model has {model.ByteSize() / 1e9:.1f} GB, at most 2 GB expected")
    for node in model.graph.node:
        del node.metadata_props[:]  # where in our own code each node comes from
    onnx.save(model, folder / ARTIFACT)  # one file, with the weights
    announce(f"{PACKAGE} {VERSION} from npm")
    unpack_runtime(fetch_runtime(), folder / "ort")
    return Written(ARTIFACT, job.fixed_batch, exported.quantization, {"runtime": f"{PACKAGE} {VERSION}"})


def fetch_runtime() -> Path:
    """Return npm's package from the cache, fetched where it is not there. Raises BackendError for other contents."""
    cache = find_cache()
    package = cache / f"{PACKAGE}-{VERSION}.tgz"
    if not package.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        run_client("npm", "pack", "--silent", "--pack-destination", str(cache), f"{PACKAGE}@{VERSION}")
    if digest_file(package) != SHA256:
        raise BackendError(f"{package}: not the {PACKAGE} {VERSION} that this project was tested with; delete the file")
    return package


def unpack_runtime(package: Path, folder: Path) -> None:
    """Write the files that the page loads, and the licence they come with."""
    folder.mkdir()
    with tarfile.open(package) as archive:
        for name in FILES:
            content = archive.extractfile(f"package/dist/{name}")
            assert content is not None
            (folder / name).write_bytes(content.read())
    (folder / "README.md").write_text(
        f"{PACKAGE} {VERSION}, by Microsoft, MIT licence: from npm, unchanged.\n", "utf-8"
    )


def open_runtime(folder: Path, announce: Announce) -> AbstractContextManager[EdgeModel]:
    return open_browser(folder, f"{PACKAGE} {VERSION}")
