"""A closed loop by wrk, the HTTP load generator, with a record of each request as the bundled client makes them.

wrk runs one thread a connection, so that its script knows which request an answer belongs to.
"""

import math
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from mar_tools.load_testing.measurement import Record, Window
from mar_tools.load_testing.processes import UsageWatch
from mar_tools.load_testing.targets import ClosedLoad, Request, Target
from vision_serving.errors import ConfigError, VisionServingError

SCRIPT = Path(__file__).with_name("rotate_requests.lua")
TIMEOUT_S = 120
UNREACHABLE = "unable to connect"
MARGIN_S = 1.0  # wrk goes on for so long after the window, so that the load does not end in it


class WrkError(VisionServingError):
    """wrk did not do its work; the message is its own."""


def run_wrk(load: ClosedLoad, watch: UsageWatch) -> tuple[list[Record], Window]:
    """The records of all requests that were answered, one of status 0 a socket error, and the window that counts.

    Of a server that nobody can connect to, one of status 0 a connection.

    Raises ConfigError where wrk is not installed, WrkError where it fails.
    """
    if shutil.which("wrk") is None:
        raise ConfigError("wrk is not on the PATH; install it (Debian: apt install wrk) or use the bundled client")
    with tempfile.TemporaryDirectory(prefix="wrk-") as name:
        folder = Path(name)
        write_requests(folder, load.target, load.requests)
        seconds = math.ceil(load.warm_up_s + load.duration_s + MARGIN_S)
        command = ["wrk", "--threads", str(load.connections), "--connections", str(load.connections)]
        command += ["--duration", f"{seconds}s", "--timeout", f"{TIMEOUT_S}s", "--script", str(SCRIPT)]
        command += [load.target.url, "--", name, str(len(load.requests))]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            try:
                window = _watch_window(load, watch)
                output, _ = process.communicate(timeout=seconds + TIMEOUT_S)
            finally:
                process.kill()
        if UNREACHABLE in output:
            return [Record(0, window.start, window.end, status=0)] * load.connections, window
        if process.returncode != 0:
            raise WrkError(f"wrk failed: {' '.join(output.split())[:300]}")
        records = [record for log in sorted(folder.glob("*.log")) for record in read_records(log)]
    return records + [Record(0, window.start, window.end, status=0)] * count_socket_errors(output), window


def write_requests(folder: Path, target: Target, requests: Sequence[Request]) -> None:
    """`<number>.request`: the bytes that go over the wire."""
    address = urlsplit(target.url)
    for number, request in enumerate(requests):
        headers = {"Host": address.netloc, **target.headers, **request.headers, "Content-Length": len(request.body)}
        lines = [f"POST {address.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        (folder / f"{number}.request").write_bytes("\r\n".join(lines).encode() + request.body)


def read_records(log: Path) -> Iterator[Record]:
    """What the script wrote: a line a request, fields between tabs, and then the body."""
    with log.open("rb") as content:
        for line in content:
            number, started, finished, status, batch_size, timing, length = line.decode().rstrip("\n").split("\t")
            body = content.read(int(length))
            yield Record(int(number), float(started), float(finished), int(status), body, batch_size, timing)


def count_socket_errors(output: str) -> int:
    """From the line that the script prints at the end: connections that could not be made, read or written."""
    counts = [line.partition(":")[2] for line in output.splitlines() if line.startswith("socket errors:")]
    if not counts:
        raise WrkError(f"wrk said nothing of its errors: {' '.join(output.split())[:300]}")
    return int(counts[0])


def _watch_window(load: ClosedLoad, watch: UsageWatch) -> Window:
    time.sleep(load.warm_up_s)
    watch.begin()
    start = time.perf_counter()
    time.sleep(load.duration_s)
    end = time.perf_counter()
    watch.end()
    return Window(start, end)
