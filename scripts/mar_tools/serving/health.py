"""Whether a server can predict: every worker is ready, and gives the golden prediction of its archive."""

import io
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import orjson
import psutil
import requests

from mar_tools.archives.golden_prediction import Golden, read_golden
from mar_tools.serving.address import read_address
from mar_tools.serving.logs import ServerLogs
from mar_tools.serving.model_status import ModelStatus, list_versions, read_status
from mar_tools.serving.start_record import read_start_record
from mar_tools.serving.torchserve_api import ServerError, TorchServeClient, tell_refusal
from vision_serving.errors import ConfigError
from vision_serving.worker.server_settings import state_folder

WORKER_HEADER = "X-Worker-Pid"
DRAINING = "DrainingError"
WORKER_ENDED = (500, 507)  # what TorchServe itself answers then
BUSY_PAUSE_S = 0.05
LEAST_PATIENCE_S = 0.2

GoldenVerdict = Literal["right", "wrong", "not checked"]


@dataclass(frozen=True)
class Health:
    """Of a version, or an archive that is not served. golden: `not checked` where the archive has none and answered
    some picture, or workers are not ready. problem: None where all is well.
    """

    model: str
    version: str
    status: ModelStatus | None
    golden: GoldenVerdict
    problem: str | None

    @property
    def healthy(self) -> bool:
        return self.problem is None

    def as_document(self) -> dict[str, Any]:
        told = {} if self.status is None else {**asdict(self.status), "ready": self.status.ready}
        named = {"model": self.model, "version": self.version}
        return {**named, **told, "golden": self.golden, "healthy": self.healthy, "problem": self.problem}

    def __str__(self) -> str:
        return f"{self.model} {self.version}".rstrip() + f": {self.problem or 'healthy'}"


def check_server(config: Path, deadline: float, names: Sequence[str] = ()) -> list[Health]:
    """Check all models, or these, by `deadline` of time.monotonic. Raises ServerError when no server answers."""
    client = TorchServeClient(read_address(config), deadline)
    record = read_start_record(config)
    left_out = {} if names else {name: f"is not served: {why}" for name, why in record.left_out.items()}
    versions = [(model, entry) for model, entry in list_versions(client) if not names or model in names]
    missing = dict.fromkeys(sorted(set(names) - {model for model, _ in versions}), "the server has no such model")
    found = [Health(name, "", None, "not checked", problem) for name, problem in (left_out | missing).items()]
    properties, logs = config.read_text(encoding="utf-8"), ServerLogs(state_folder(config) / "logs", record.log_sizes)
    with ThreadPoolExecutor(len(versions) or 1) as pool:  # one that hangs must not hide what the others are like
        return found + list(pool.map(lambda one: check_version(client, one[0], one[1], properties, logs), versions))


def check_version(
    client: TorchServeClient, model: str, entry: Mapping[str, Any], properties: str, logs: ServerLogs
) -> Health:
    status = read_status(model, entry, properties)
    if not status.ready:
        reason = logs.load_failure(model, status.version)
        ready = f"{status.workers_ready} of {status.workers} workers are ready"
        return Health(model, status.version, status, "not checked", f"cannot load: {reason}" if reason else ready)
    try:
        verdict, problem = check_golden(client, model, entry)
    except (ServerError, ConfigError) as error:
        verdict, problem = "wrong", str(error)
    return Health(model, status.version, status, verdict, problem)


def check_golden(client: TorchServeClient, model: str, entry: Mapping[str, Any]) -> tuple[GoldenVerdict, str | None]:
    """Ask until every worker has answered: the answer says who gave it. Raises ServerError when one is late."""
    version, waiting = entry["modelVersion"], {worker["pid"] for worker in entry["workers"]}
    prepared = find_golden(waiting)
    picture, golden = prepared or (gray_picture(), None)
    while waiting:
        # A worker that hangs keeps what it took; the next request reaches another one.
        limit = time.monotonic() + client.seconds_left() / (len(waiting) + 1)
        try:
            response = ask_any(
                client.with_deadline(limit), model, version, picture, waiting, golden.options if golden else None
            )
        except ServerError:
            if time.monotonic() < limit or client.seconds_left() < LEAST_PATIENCE_S:
                raise
            continue
        pid = response.headers.get(WORKER_HEADER)
        differences = find_faults(response, golden)
        if differences:
            return "wrong", (f"worker {pid}: " if pid else "") + "; ".join(differences[:3])
        if golden is None or pid is None:
            return "not checked", None
        tick_off(waiting, int(pid))
    return "right", None


def tick_off(waiting: set[int], pid: int) -> None:
    """Tick off a worker that has answered. When it did before, rest: the one that is waited for is busy."""
    if pid not in waiting:
        time.sleep(BUSY_PAUSE_S)
    waiting.discard(pid)


def ask_any(
    client: TorchServeClient,
    model: str,
    version: str,
    picture: bytes,
    waiting: set[int],
    options: Mapping[str, str] | None = None,
) -> requests.Response:
    """Return an answer of any worker, when the queue has room. Raises ServerError that names the `waiting` ones."""
    while True:
        try:
            response = client.predict(model, picture, options, version)
        except ServerError as error:
            late = ", ".join(str(pid) for pid in sorted(waiting))
            raise ServerError(f"no answer from worker {late} in time ({error})") from error
        if response.status_code != requests.codes.unavailable or is_draining(response):
            return response
        time.sleep(BUSY_PAUSE_S)


def ask_each(
    client: TorchServeClient,
    model: str,
    version: str,
    workers: set[int],
    counts: Callable[[requests.Response], bool] = lambda response: True,
) -> bool:
    """Ask until each of these workers has given an answer that counts, or has ended.

    False: the archive is another's, and its workers cannot be told apart. Raises ServerError when one is late.
    """
    waiting, picture = set(workers), find_picture(workers)
    while waiting := {pid for pid in waiting if psutil.pid_exists(pid)}:
        response = ask_any(client, model, version, picture, waiting)
        pid = response.headers.get(WORKER_HEADER)
        if pid is not None:
            if counts(response):
                tick_off(waiting, int(pid))
        elif response.status_code in WORKER_ENDED:
            time.sleep(BUSY_PAUSE_S)
        else:
            return False
    return True


def find_faults(response: requests.Response, golden: Golden | None) -> list[str]:
    """Return what is wrong with an answer."""
    if not response.ok:
        return [f"cannot predict: {tell_refusal(response)}"]
    try:
        return [] if golden is None else golden.find_differences(orjson.loads(response.content))
    except orjson.JSONDecodeError:
        return ["the answer is not JSON"]


def is_draining(response: requests.Response) -> bool:
    return response.status_code == requests.codes.unavailable and DRAINING.encode() in response.content


def find_golden(workers: set[int]) -> tuple[bytes, Golden] | None:
    """Find that of the loaded archive, which need not be the one in the store: workers run in the folder it is in."""
    for pid in workers:
        try:
            folder = Path(psutil.Process(pid).cwd())
        except psutil.Error:  # just replaced, or another user's
            continue
        return read_golden(folder)
    return None


def find_picture(workers: set[int]) -> bytes:
    """Return one that the model answers, whatever it says."""
    prepared = find_golden(workers)
    return gray_picture() if prepared is None else prepared[0]


def gray_picture() -> bytes:
    """Return what an archive without a golden prediction is asked."""
    import PIL.Image  # the probe of a server whose archives have one does not wait for it

    buffer = io.BytesIO()
    PIL.Image.new("RGB", (320, 240), (128, 128, 128)).save(buffer, "PNG")
    return buffer.getvalue()
