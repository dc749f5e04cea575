"""Start, watch and stop one TorchServe, with the right Java, its own temporary folder, and nothing left behind."""

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import PIL.Image
import psutil

from mar_tools.archive import check_archive
from mar_tools.java import find_java_home
from mar_tools.ports import ADDRESS_KEYS, PORT_KEYS, is_free
from mar_tools.server_logs import ServerLogs
from mar_tools.torchserve_api import ServerError, TorchServeClient, describe_failure, read_address
from vision_serving.errors import ConfigError
from vision_serving.resources import WAIT_POLICY, ThreadPlan, read_model, read_properties, read_threads

STOP_TIMEOUT_S = 20.0
POLL_S = 0.25


@dataclass(frozen=True)
class ModelStatus:
    """One version of one model on a running server. threads: of each worker, as the properties have it."""

    model: str
    version: str
    workers_ready: int
    workers: int
    threads: ThreadPlan
    batch_size: int
    max_batch_delay_ms: int
    device: str

    @property
    def ready(self) -> bool:
        return self.workers_ready == self.workers > 0


class Server:
    """The TorchServe of one `config.properties`."""

    def __init__(self, config: Path) -> None:
        self.config = config.resolve()
        self.folder = self.config.parent
        address = read_address(self.config)
        self._tokens_on = address.key_file is not None
        self._key_file = self.folder / "key_file.json"
        self._values = read_properties(self.config.read_text(encoding="utf-8"))
        self.client = TorchServeClient(address)
        # Short, because TorchServe puts Unix sockets there; by folder, so that two checkouts never meet.
        digest = hashlib.sha256(str(self.config).encode()).hexdigest()[:12]
        self._temporary = Path(tempfile.gettempdir()) / f"vision-serving-{digest}"
        self._pid_file = self._temporary / ".model_server.pid"
        self._logs = ServerLogs(self.folder / "logs")

    def process(self) -> psutil.Process | None:
        """The running frontend, None when there is none."""
        try:
            process = psutil.Process(int(self._pid_file.read_text()))
            return process if "org.pytorch.serve.ModelServer" in process.cmdline() else None
        except (FileNotFoundError, ValueError, psutil.Error):
            return None

    def start(self, timeout_s: float, announce: Callable[[str], None]) -> list[ModelStatus]:
        """Start and wait until every model has answered a prediction. Raises ServerError or ConfigError."""
        if self.process() is not None:
            raise ServerError(f"the server of {self.config.name} is already running; use restart, or stop it first")
        self._require_free_ports()
        self._check_models()
        deadline = time.monotonic() + timeout_s
        try:
            self._launch()
            return self._wait_until_ready(deadline, announce)
        except BaseException:  # also when the user interrupts: half a server is of no use
            self.stop()
            raise

    def stop(self) -> bool:
        """Stop the frontend and its workers, and remove what they leave. False when nothing was running."""
        process = self.process()
        if process is None:
            return False  # a key file here may belong to a server that the plain torchserve command started
        family = [process, *process.children(recursive=True)]
        process.terminate()
        for survivor in wait_until_ended(family, STOP_TIMEOUT_S):
            survivor.kill()
        wait_until_ended(family, STOP_TIMEOUT_S)
        shutil.rmtree(self._temporary, ignore_errors=True)
        self._key_file.unlink(missing_ok=True)
        return True

    def status(self) -> list[ModelStatus]:
        """Raises ServerError when the server does not answer."""
        return [entry for model in self.client.list_models() for entry in self._describe(model)]

    def archives(self) -> list[Path]:
        """Those that `load_models` names: all of the store, or a list."""
        store, wanted = self.model_store(), self._values.get("load_models", "all")
        if wanted.lower() == "all":
            return sorted(store.glob("*.mar"))
        return [store / name.strip().rpartition("=")[2] for name in wanted.split(",") if name.strip()]

    def model_store(self) -> Path:
        return self.folder / self._values.get("model_store", "model_store")

    def _check_models(self) -> None:
        """Raises ConfigError for what TorchServe would leave out or end with, without saying why."""
        read_model(self.config.read_text(encoding="utf-8"), "")  # refuses `models` that is not JSON
        seen: dict[tuple[str, str], Path] = {}
        for archive in self.archives():
            identity = check_archive(archive)
            if identity in seen:
                both = f"{seen[identity].name} and {archive.name}"
                raise ConfigError(
                    f"{self.model_store()}: {both} both hold model {identity[0]} {identity[1]}; move one away"
                )
            seen[identity] = archive

    def _launch(self) -> None:
        shutil.rmtree(self._temporary, ignore_errors=True)
        self._temporary.mkdir(parents=True, mode=0o700)
        self._key_file.unlink(missing_ok=True)
        for key in ("model_store", "workflow_store"):
            if key in self._values:
                (self.folder / self._values[key]).mkdir(parents=True, exist_ok=True)
        environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "TS_CONFIG_FILE")}
        environment = (
            WAIT_POLICY
            | environment
            | {
                "JAVA_HOME": str(find_java_home()),
                "TMPDIR": str(self._temporary),
                "TEMP": str(self._temporary),
            }
        )
        command = [sys.executable, "-m", "ts.model_server", "--start", "--ncs", "--ts-config", self.config.name]
        self._logs.begin()
        with (self.folder / "logs" / "console.log").open("wb") as output:
            subprocess.run(
                command,
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                check=True,
                start_new_session=True,  # Ctrl-C in this terminal must not reach the server
                umask=0o077,  # TorchServe makes key_file.json first, and takes it from other users afterwards
            )

    def _wait_until_ready(self, deadline: float, announce: Callable[[str], None]) -> list[ModelStatus]:
        announce("waiting for the frontend")
        self._poll(deadline, self._frontend_answers, "the frontend did not come up")
        while True:
            models = self.status()
            waiting = [entry for entry in models if not entry.ready]
            if not waiting:
                break
            names = ", ".join(f"{entry.model} {entry.workers_ready}/{entry.workers}" for entry in waiting)
            announce(f"waiting for workers: {names}")
            self._check_loading()
            if time.monotonic() > deadline:
                raise ServerError(f"not ready in time: {names}{self._logs.last_failure()}")
            time.sleep(POLL_S)
        for entry in models:
            announce(f"first prediction of {entry.model}")
            response = self.client.predict(entry.model, gray_image(), version=entry.version)
            if not response.ok:
                raise ServerError(f"{entry.model} cannot predict: {describe_failure(response)}")
        return models

    def _poll(self, deadline: float, condition: Callable[[], bool], failure: str) -> None:
        while not condition():
            self._check_loading()
            if time.monotonic() > deadline:
                raise ServerError(f"{failure}{self._logs.last_failure()}")
            time.sleep(POLL_S)

    def _frontend_answers(self) -> bool:
        if self._tokens_on and not self._key_file.is_file():
            return False
        try:
            self.client.list_models()
        except ServerError:
            return False
        return True

    def _check_loading(self) -> None:
        """Raises ServerError when the frontend ended, or a worker said why it cannot load its model."""
        if self.process() is None:
            raise ServerError(f"TorchServe ended during start{self._logs.last_failure()}")
        failure = self._logs.load_failure()
        if failure:
            raise ServerError(failure)

    def _describe(self, model: str) -> Iterator[ModelStatus]:
        properties = self.config.read_text(encoding="utf-8")
        for entry in self.client.describe(model):
            workers = entry["workers"]
            yield ModelStatus(
                model=model,
                version=entry["modelVersion"],
                workers_ready=sum(worker["status"] == "READY" for worker in workers),
                workers=max(len(workers), entry["minWorkers"]),
                threads=read_threads(properties, model, entry["modelVersion"]),
                batch_size=entry["batchSize"],
                max_batch_delay_ms=entry["maxBatchDelay"],
                device=entry["deviceType"],
            )

    def _require_free_ports(self) -> None:
        for name, port in self.ports().items():
            if not is_free(port):
                taken = f"port {port} ({name} in {self.config.name}) is taken by another process"
                raise ServerError(f"{taken}; stop it or change the port")

    def ports(self) -> dict[str, int]:
        """The five listening ports by their key."""
        ports = {key: int(self._values.get(key, default)) for key, default in PORT_KEYS.items()}
        for key, default in ADDRESS_KEYS.items():
            ports[key] = urlsplit(self._values.get(key, "")).port or default
        return ports


def wait_until_ended(processes: list[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """Those that still run at the end. A zombie has ended, though the init of a container may never reap it."""
    deadline = time.monotonic() + timeout_s
    while (alive := [process for process in processes if _runs(process)]) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return alive


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def gray_image() -> bytes:
    """A picture that every vision model can answer."""
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (320, 240), (128, 128, 128)).save(buffer, "PNG")
    return buffer.getvalue()
