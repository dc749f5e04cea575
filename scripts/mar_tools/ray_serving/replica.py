"""A replica of Ray Serve: one archive, run by its own code through `initialize` and `handle`, as TorchServe runs it.

At its top this file imports nothing of the core: the process takes `vision_serving` from the archive, as a worker of
TorchServe does, so that archives of several versions of the code can be served side by side.
"""

import hashlib
import importlib
import inspect
import json
import os
import sys
import tempfile
import time
import zipfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from mar_tools.ray_serving.batching import Batcher
from mar_tools.ray_serving.channel import Listening, ReplicaServer
from mar_tools.ray_serving.exchange import Answer, BatchContext, Request

MANIFEST = "MAR-INF/MANIFEST.json"
SETTINGS_VARIABLE = "VISION_SERVING_CONFIG"  # which the core reads, too (worker/server_settings.py)
OF_THE_ARCHIVE = "vision_serving"
BLOCK = 1 << 20
DESCRIBE = {"describe": "True"}
UNDER_WAY = "under_way"


class Spec(NamedTuple):
    """What a replica serves, and how. archive, config: paths that are the same on each machine."""

    archive: str
    sha256: str
    model: str
    version: str
    config: str
    batch_size: int
    max_batch_delay_ms: int


class State(NamedTuple):
    """under_way: requests. idle_s: how long it has not been asked."""

    under_way: int
    idle_s: float


class ModelReplica:
    """The deployment. Its model lives in one thread, so that it hears others while a batch runs."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._folder = tempfile.TemporaryDirectory(prefix="vision-serving-")
        self._thread = ThreadPoolExecutor(1, "model")
        self._manifest: Mapping[str, Any] = {}
        self._properties: dict[str, Any] = {}
        self._handler: Any = None
        self._card: dict[str, Any] = {}
        self._thread.submit(self._load).result()
        batcher = Batcher(self._handle, self._thread, spec.batch_size, spec.max_batch_delay_ms / 1000)
        self._server = ReplicaServer(batcher.answer)

    async def listen(self, host: str | None = None) -> Listening:
        """Listen at an address, by default the one that Ray has for this machine, and return where this replica is
        asked. It has loaded its archive then, and given its golden prediction.
        """
        return Listening(*await self._server.listen(host or find_host()), self._card)

    def state(self) -> State:
        return State(self._server.under_way, time.monotonic() - self._server.last_asked)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Return how many requests this replica has: Serve sees only those that come by its own handles."""
        return {UNDER_WAY: float(self._server.under_way)}

    async def drain(self) -> None:
        """Take no request any more, answer those under way, and remove what was unpacked."""
        await self._server.drain()
        self._folder.cleanup()

    def _handle(self, requests: Sequence[Request]) -> list[Answer]:
        context = self._context(requests)
        return context.collect_answers(self._handler.handle([request.row for request in requests], context))

    def _context(self, requests: Sequence[Request] = ()) -> BatchContext:
        return BatchContext(self._spec.model, self._manifest, self._properties, requests)

    def _load(self) -> None:
        """Raises RuntimeError for an archive that is another than the one that was checked, or cannot be served."""
        folder = Path(self._folder.name)
        extract_checked(Path(self._spec.archive), self._spec.sha256, folder)
        self._manifest = json.loads((folder / MANIFEST).read_bytes())
        gpu = 0 if os.environ.get("CUDA_VISIBLE_DEVICES") else None  # Ray shows a replica the one that it has
        self._properties = {"model_dir": str(folder), "gpu_id": gpu, "batch_size": self._spec.batch_size}
        os.environ[SETTINGS_VARIABLE] = self._spec.config
        self._handler = new_handler(folder, self._manifest["model"]["handler"])
        self._handler.initialize(self._context())
        self._require_golden(folder)
        (answer,) = self._handle([Request({}, DESCRIBE)])  # as a worker of TorchServe gives its model card
        self._card = json.loads(answer.body)

    def _require_golden(self, folder: Path) -> None:
        """Raises RuntimeError where this replica does not give the golden prediction of its archive."""
        from mar_tools.archives.golden_prediction import read_golden

        prepared = read_golden(folder)
        if prepared is None:
            return
        picture, golden = prepared
        options = "; ".join(f"{name}={value}" for name, value in golden.options.items())
        (answer,) = self._handle([Request({"body": picture}, {"X-Inference-Options": options})])
        said = answer.body.decode(errors="replace")
        problems = golden.find_differences(json.loads(said)) if answer.status == 200 else [said]
        if problems:
            named = f"{self._spec.model} {self._spec.version}"
            raise RuntimeError(f"{named} does not give its golden prediction: {'; '.join(problems[:3])}")


def find_host() -> str:
    """Return the address that Ray has for this machine."""
    import ray

    return str(ray.util.get_node_ip_address())


def extract_checked(archive: Path, sha256: str, folder: Path) -> None:
    """Unpack an archive whose bytes are those that were checked before: then no two readers of it can disagree.

    Raises RuntimeError for other bytes.
    """
    with archive.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(BLOCK):
            digest.update(block)
        if digest.hexdigest() != sha256:
            raise RuntimeError(f"{archive}: changed after it was checked as {sha256}; deploy it again")
        file.seek(0)
        with zipfile.ZipFile(file) as packed:
            packed.extractall(folder)


def new_handler(folder: Path, entry_file: str) -> Any:
    """Return the handler that an archive's entry file defines, with the code that is packed beside it."""
    if OF_THE_ARCHIVE in sys.modules:
        raise RuntimeError(f"{OF_THE_ARCHIVE} was imported before the archive's own; a replica serves one archive")
    sys.path.insert(0, str(folder))
    module = importlib.import_module(Path(entry_file).stem)
    (handler,) = (
        value for value in vars(module).values() if inspect.isclass(value) and value.__module__ == module.__name__
    )
    return handler()
