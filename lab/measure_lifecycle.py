"""How long a server takes to start, and to end under load without losing a request.

    python lab/measure_lifecycle.py model_store/digits.mar --rounds 5 --json lab/results/lifecycle.json

Each round runs `serve_models.py run` as a container does. The start lasts from that command to the first golden answer.
Then so many clients ask one after the other, as behind a balancer: each ends when it is refused. The drain lasts from
SIGTERM to the exit of the process. The load average of the machine at the start of each round stands in the results.
"""

import os
import runpy
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from argparse import Namespace
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # outside the environment, this names the command that helps
    runpy.run_path(str(Path(__file__).parents[1] / "scripts/mar_tools/__init__.py"))

import orjson
import requests

from mar_tools.archives.archive import open_archive
from mar_tools.command_line import ROOT, new_parser, positive_count, run
from mar_tools.serving.config_file import with_values
from mar_tools.serving.health import check_server
from mar_tools.serving.server import Server
from mar_tools.serving.temporary_server import own_places
from mar_tools.serving.torchserve_api import ServerError
from mar_tools.terminal import print_line
from vision_serving.errors import VisionServingError

START_S, END_S = 300.0, 120.0
POLL_S = 0.05
LOAD_S = 3.0  # before the signal
ANSWERED, REFUSED = "200", "503 DrainingError"


def main() -> None:
    arguments = parse_arguments()
    from mar_tools.load_testing.reporting import describe_run

    rounds = []
    for number in range(arguments.rounds):
        rounds.append(measure(arguments.archive, arguments.clients))
        print_line(f"round {number + 1} of {arguments.rounds}: {rounds[-1]}")
    medians = {key: round(statistics.median(each[key] for each in rounds), 2) for key in ("start_s", "drain_s")}
    document = describe_run(clients=arguments.clients, rounds=rounds, **medians)
    arguments.json.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
    print(f"start {medians['start_s']:.1f} s, drain {medians['drain_s']:.1f} s")


def parse_arguments() -> Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("archive", type=Path, help="with a golden prediction")
    parser.add_argument("--clients", type=positive_count, default=8)
    parser.add_argument("--rounds", type=positive_count, default=5)
    parser.add_argument("--json", type=Path, required=True)
    return parser.parse_args()


def measure(archive: Path, clients: int) -> dict[str, Any]:
    """Return the seconds of one start and one drain, and what became of the requests meanwhile."""
    load_average = round(os.getloadavg()[0], 1)
    with tempfile.TemporaryDirectory(prefix="lifecycle-") as temporary:
        config = write_server(Path(temporary), archive)
        command = [sys.executable, str(ROOT / "scripts" / "serve_models.py"), "run", "--config", str(config)]
        with (Path(temporary) / "said.txt").open("wb") as said:
            began = time.monotonic()
            process = subprocess.Popen([*command, "--drain-timeout-s", "60"], stdout=said, stderr=said)
        try:
            wait_for_golden(config, process)
            start_s = time.monotonic() - began
            outcomes, drain_s = drain(Server(config), archive, process, clients)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(END_S)
    if process.returncode != 0 or set(outcomes) != {ANSWERED, REFUSED}:
        raise VisionServingError(f"exit status {process.returncode}, answers {dict(outcomes)}")
    times = {"start_s": round(start_s, 2), "drain_s": round(drain_s, 2)}
    return {**times, "answered": outcomes[ANSWERED], "refused": outcomes[REFUSED], "load_average": load_average}


def write_server(folder: Path, archive: Path) -> Path:
    """Write the shipped settings for free ports and without tokens, and the archive alone in a store."""
    (folder / "model_store").mkdir()
    (folder / "model_store" / archive.name).symlink_to(archive.resolve())
    (folder / "log4j2.xml").write_bytes((ROOT / "log4j2.xml").read_bytes())
    config = folder / "config.properties"
    values = {**own_places(), "disable_token_authorization": "true"}
    config.write_text(with_values((ROOT / "config.properties").read_text("utf-8"), values), encoding="utf-8")
    return config


def wait_for_golden(config: Path, process: "subprocess.Popen[bytes]") -> None:
    """Wait until each worker has given the golden prediction. Raises VisionServingError where none will."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(ServerError):  # nothing listens yet
            found = check_server(config, time.monotonic() + 5)
            if found and all(health.healthy and health.golden == "right" for health in found):
                return
        time.sleep(POLL_S)
    raise VisionServingError("the server gave no golden prediction; the archive must have one")


def drain(
    server: Server, archive: Path, process: "subprocess.Popen[bytes]", clients: int
) -> tuple[Counter[str], float]:
    """End a server under load. Return how often each outcome came, and the seconds."""
    packed = open_archive(archive)
    url = f"http://127.0.0.1:{server.ports()['inference_address']}/predictions/{packed.identity[0]}"
    outcomes: list[str] = []
    arguments = (url, packed.read("golden.png"), outcomes)
    threads = [threading.Thread(target=ask_until_refused, args=arguments) for _ in range(clients)]
    for thread in threads:
        thread.start()
    time.sleep(LOAD_S)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.wait(END_S)
    seconds = time.monotonic() - began
    for thread in threads:
        thread.join()
    return Counter(outcomes), seconds


def ask_until_refused(url: str, picture: bytes, outcomes: list[str]) -> None:
    with requests.Session() as session:
        while True:
            try:
                answer = session.post(url, data=picture, headers={"Content-Type": "image/png"}, timeout=60)
            except requests.RequestException as error:
                outcomes.append(type(error).__name__)
                return
            is_answer = answer.status_code == 200
            outcomes.append(ANSWERED if is_answer else f"{answer.status_code} {answer.json().get('type')}")
            if not is_answer:
                return


if __name__ == "__main__":
    run(main)
