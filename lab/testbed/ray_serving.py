"""One archive served by TorchServe and by Ray Serve, with the same workers, batches and clients."""

import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mar_tools.command_line import ROOT
from mar_tools.load_testing.answers import expect_answers, open_export
from mar_tools.load_testing.closed_loop import run_closed_loop
from mar_tools.load_testing.processes import find_processes
from mar_tools.load_testing.targets import Request, Target, prepare_requests
from mar_tools.serving.config_file import format_models, with_absolute_paths, with_values
from mar_tools.serving.server import Server
from mar_tools.serving.temporary_server import own_places, temporary_server
from mar_tools.waiting import wait_until
from vision_serving.cores import usable_cores

CONNECTIONS, BATCH, DELAY_MS = 16, 8, 2
WARM_UP_S, WINDOW_S = 4.0, 10.0
START_S, STOP_S = 300.0, 90.0
POLL_S = 0.2
MB = 1e6
WORKER, REPLICA = "model_service_worker.py", "ServeReplica:"  # how the command line of one reads


def prepare(archive: Path, pictures: Sequence[bytes]) -> list[Request]:
    """Return a request a picture, with the answer that must come."""
    with open_export(archive) as export:
        return prepare_requests(pictures, expected=expect_answers(export, pictures))


def properties_of(archive: Path) -> str:
    """Return the shipped config.properties with a worker a core for this archive."""
    cores = usable_cores()
    model = {"defaultVersion": True, "marName": archive.name, "minWorkers": cores, "maxWorkers": cores}
    model |= {"batchSize": BATCH, "maxBatchDelay": DELAY_MS}
    shipped = with_absolute_paths((ROOT / "config.properties").read_text(encoding="utf-8"), ROOT)
    models = format_models({archive.stem: {"1.0": model}})
    return with_values(shipped, {"models": models, "load_models": archive.name})


def measure_torchserve(archive: Path, requests: Sequence[Request]) -> dict[str, float]:
    with temporary_server([archive], properties_of(archive), ROOT / "log4j2.xml") as server:
        process = server.process()
        assert process is not None
        headers = {"Authorization": f"Bearer {server.client.renew_token('inference')}"}
        url = f"http://127.0.0.1:{server.ports()['inference_address']}/predictions/{archive.stem}"
        return measure("torchserve", Target(archive.stem, url, headers, process.pid), requests, WORKER)


def measure_ray(archive: Path, requests: Sequence[Request]) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="ray-serving-") as folder, serve_on_ray(archive, Path(folder)) as served:
        process, url = served
        return measure(
            "ray", Target(archive.stem, f"{url}/predictions/{archive.stem}", {}, process.pid), requests, REPLICA
        )


@contextmanager
def serve_on_ray(archive: Path, folder: Path) -> Iterator[tuple["subprocess.Popen[bytes]", str]]:
    """Serve an archive on a cluster of its own. Give the process and the address. Raises RuntimeError."""
    (folder / "model_store").mkdir()
    (folder / "model_store" / archive.name).symlink_to(archive.resolve())
    config, said = folder / "config.properties", folder / "said.txt"
    config.write_text(with_values(properties_of(archive), own_places()), encoding="utf-8")
    url = f"http://127.0.0.1:{Server(config).ports()['inference_address']}"
    command = [sys.executable, str(ROOT / "scripts" / "serve_on_ray.py"), "--config", str(config)]
    with said.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            wait_until(lambda: "serving at" in said.read_text() or process.poll() is not None, START_S, POLL_S)
            if "serving at" not in said.read_text():
                raise RuntimeError(f"{command} has not started: {said.read_text()}")
            yield process, url
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(STOP_S)


def measure(name: str, target: Target, requests: Sequence[Request], worker: str) -> dict[str, float]:
    """Return requests/s, latencies, and the memory that only one worker has. Raises RuntimeError for wrong answers."""
    run_closed_loop(target, requests, CONNECTIONS, WARM_UP_S)
    measured = run_closed_loop(target, requests, CONNECTIONS, WINDOW_S)
    if measured.failed or measured.wrong:
        raise RuntimeError(f"{name}: {measured.failed} requests failed, {measured.wrong} answers were wrong")
    found: dict[str, Any] = {"requests_per_s": measured.requests_per_s, "batch_size": measured.batch_size}
    found |= {f"{share}_ms": measured.latency_ms[share] for share in ("p50", "p99")}
    found["cpu_ms_per_request"] = measured.cpu_ms_per_request
    assert target.pid is not None
    workers = [each for each in find_processes([target.pid]) if worker in " ".join(each.cmdline())]
    found["worker_uss_mb"] = statistics.median(each.memory_full_info().uss for each in workers) / MB
    return {f"{name}_{figure}": float(value) for figure, value in found.items()}
