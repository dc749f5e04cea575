"""What a file costs: the memory and time of its decoding, in a process of its own and in the workers of a server."""

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from lab.testbed.traffic import Exchange

MEBI = 1 << 20
KIBI = 1 << 10

# Each file in a process of its own, whose memory began with what the parent held.
MEASURE = """
import os, resource, sys, time
from pathlib import Path
import orjson
import vision_serving.pictures.decoding as images
from vision_serving.pictures.formats import load_formats
from vision_serving.config import ImageLimits
from vision_serving.errors import RequestError

def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

def decode(data):
    began, before = time.process_time(), peak_mib()
    try:
        status = 200 if images.decode_image(data, ImageLimits()).size else 0
    except RequestError as error:
        status = error.status
    return {"status": status, "seconds": time.process_time() - began, "rise_mib": peak_mib() - before}

load_formats(ImageLimits().formats)
for path in map(Path, sys.argv[1:]):
    data = path.read_bytes()
    if os.fork() == 0:
        path.with_suffix(".json").write_bytes(orjson.dumps(decode(data)))
        os._exit(0)
    os.wait()
"""


@dataclass(frozen=True)
class Cost:
    """seconds: of the processor, or until the answer. rise_mib: of the peak above what the process held before."""

    status: int
    seconds: float
    rise_mib: float


def measure_without_server(files: Mapping[str, Callable[[], bytes]], folder: Path) -> dict[str, Cost]:
    """Raises RuntimeError where the process that decodes them fails."""
    paths = {name: folder / str(number) for number, name in enumerate(files)}
    for name, path in paths.items():
        path.write_bytes(files[name]())
    finished = subprocess.run([sys.executable, "-c", MEASURE, *paths.values()], capture_output=True, text=True)
    if finished.returncode != 0:
        raise RuntimeError(finished.stderr)
    return {name: Cost(**orjson.loads(path.with_suffix(".json").read_bytes())) for name, path in paths.items()}


def read_process_status(pid: int, key: str) -> int:
    """Return bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * KIBI for line in lines if line.startswith(key + ":"))


def measure_in_workers(pids: Sequence[int], send: Callable[[], Exchange]) -> tuple[Cost, Exchange]:
    """Send one request, alone on the server of these workers; the rise is that of the one that rose most (Linux)."""
    for pid in pids:
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak begins anew from what is held now
    before, started = {pid: read_process_status(pid, "VmRSS") for pid in pids}, time.perf_counter()
    exchange = send()
    seconds = time.perf_counter() - started
    rise = max(read_process_status(pid, "VmHWM") - before[pid] for pid in pids)
    return Cost(exchange.status, seconds, rise / MEBI), exchange
