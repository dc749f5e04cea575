"""How long a server takes to start, and to end under load without losing a request.

    python lab/measure_lifecycle.py model_store/digits.mar --rounds 5 --json lab/results/lifecycle.json
    python lab/measure_lifecycle.py model_store/digits.mar --image vision-serving vision-front \\
        --json lab/results/lifecycle_container.json

Each round runs `serve_models.py run`, or the image by `podman run`. The start lasts from that command to the first
golden answer. Then so many clients ask one after the other, as behind a balancer: each ends when it is refused. The
drain lasts from SIGTERM, or `podman stop`, to the exit. The load average of the machine at the start of each round
stands in the results. A container has the network of the machine; CONTAINERS_CONF and CONTAINERS_STORAGE_CONF say
which podman it is.
"""

import os
import runpy
import shutil
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
from mar_tools.archives.golden_prediction import GOLDEN, PICTURE, Golden
from mar_tools.command_line import ROOT, new_parser, positive_count, run
from mar_tools.serving.address import read_address
from mar_tools.serving.config_file import with_values
from mar_tools.serving.health import find_faults
from mar_tools.serving.temporary_server import own_places
from mar_tools.terminal import print_line
from vision_client.client import request_headers
from vision_serving.errors import VisionServingError
from vision_serving.validation import parse_config

START_S, END_S = 300.0, 120.0
STOP_S = 75  # as the page says
CONTAINER = f"lifecycle-{os.getpid()}"
POLL_S = 0.05
LOAD_S = 3.0  # before the signal
PACKAGES = ("torch", "openvino", "torchserve")
ANSWERED, REFUSED = "200", "503 DrainingError"


def main() -> None:
    arguments = parse_arguments()
    from mar_tools.load_testing.reporting import describe_run

    sizes = measure_sizes(arguments.image)
    rounds = []
    for number in range(arguments.rounds):
        rounds.append(measure(arguments.archive, arguments.clients, next(iter(arguments.image), None)))
        print_line(f"round {number + 1} of {arguments.rounds}: {rounds[-1]}")
    medians = {key: round(statistics.median(each[key] for each in rounds), 2) for key in ("start_s", "drain_s")}
    of_images = {"image_mb": sizes, "versions": find_versions(arguments.image[0])} if sizes else {}
    document = describe_run(clients=arguments.clients, rounds=rounds, **medians, **of_images)
    arguments.json.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
    print(f"start {medians['start_s']:.1f} s, drain {medians['drain_s']:.1f} s")


def parse_arguments() -> Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("archive", type=Path, help="with a golden prediction")
    parser.add_argument(
        "--image", nargs="+", default=[], help="the first is run instead; the sizes of all stand in the results"
    )
    parser.add_argument("--clients", type=positive_count, default=8)
    parser.add_argument("--rounds", type=positive_count, default=5)
    parser.add_argument("--json", type=Path, required=True)
    return parser.parse_args()


def measure_sizes(images: list[str]) -> dict[str, float]:
    """Return the size of each image with all of its layers, in MB."""
    return {name: round(int(ask_podman("image", "inspect", "--format", "{{.Size}}", name)) / 1e6, 1) for name in images}


def find_versions(image: str) -> dict[str, str]:
    """Return those of the packages in an image that serve."""
    told = orjson.loads(ask_podman("run", "--rm", "--network", "none", "--entrypoint", "cat", image, "sbom.json"))
    return {part["name"]: part["version"] for part in told["components"] if part["name"] in PACKAGES}


def ask_podman(*words: str) -> str:
    finished = subprocess.run(["podman", *words], stdout=subprocess.PIPE, text=True)
    if finished.returncode != 0:
        raise VisionServingError(f"podman {' '.join(words)}: exit status {finished.returncode}; it says why above")
    return finished.stdout


def measure(archive: Path, clients: int, image: str | None) -> dict[str, Any]:
    """Return the seconds of one start and one drain, and what became of the requests meanwhile."""
    load_average = round(os.getloadavg()[0], 1)
    with tempfile.TemporaryDirectory(prefix="lifecycle-") as temporary:
        config = write_server(Path(temporary), archive)
        answers = Answers(config, archive)
        command = foreground(config) if image is None else container(config, image)
        with (Path(temporary) / "said.txt").open("wb") as said:
            began = time.monotonic()
            process = subprocess.Popen([*command, "run", "--drain-timeout-s", "60"], stdout=said, stderr=said)
        try:
            answers.wait_for_golden(process)
            start_s = time.monotonic() - began
            outcomes, drain_s = drain(answers, process, clients, image)
        finally:
            if process.poll() is None:
                process.terminate()  # podman passes it on
                process.wait(END_S)
    if process.returncode != 0 or set(outcomes) != {ANSWERED, REFUSED}:
        raise VisionServingError(f"exit status {process.returncode}, answers {dict(outcomes)}")
    times = {"start_s": round(start_s, 2), "drain_s": round(drain_s, 2)}
    return {**times, "answered": outcomes[ANSWERED], "refused": outcomes[REFUSED], "load_average": load_average}


def foreground(config: Path) -> list[str]:
    return [sys.executable, str(ROOT / "scripts" / "serve_models.py"), "--config", str(config)]


def container(config: Path, image: str) -> list[str]:
    """Run as docs/operate/containers.md says. It stays attached, so its exit status is that of the container."""
    command = ["podman", "run", "--rm", "--name", CONTAINER, "--network", "host", "--read-only", "--tmpfs", "/tmp"]
    command += ["--cap-drop", "all", "--security-opt", "no-new-privileges"]
    command += ["--volume", f"{config}:/app/config.properties:ro"]
    return [*command, "--volume", f"{config.parent}/model_store:/app/model_store:ro", image]


def write_server(folder: Path, archive: Path) -> Path:
    """Write the shipped settings for free ports and without tokens, and the archive alone in a store."""
    (folder / "model_store").mkdir()
    shutil.copyfile(archive, folder / "model_store" / archive.name)
    (folder / "log4j2.xml").write_bytes((ROOT / "log4j2.xml").read_bytes())
    config = folder / "config.properties"
    values = {**own_places(), "disable_token_authorization": "true"}
    config.write_text(with_values((ROOT / "config.properties").read_text("utf-8"), values), encoding="utf-8")
    return config


class Answers:
    """What the server of these settings answers to the golden picture of its archive."""

    def __init__(self, config: Path, archive: Path) -> None:
        packed = open_archive(archive)
        address = read_address(config).inference
        self.url, self.picture = f"{address}/predictions/{packed.identity[0]}", packed.read(PICTURE)
        self._golden = parse_config(Golden, orjson.loads(packed.read(GOLDEN)), GOLDEN)

    def wait_for_golden(self, process: "subprocess.Popen[bytes]") -> None:
        """Wait until the picture gets its golden answer. Raises VisionServingError where it gets none."""
        deadline, headers = time.monotonic() + START_S, request_headers("application/json", self._golden.options)
        while time.monotonic() < deadline and process.poll() is None:
            with suppress(requests.RequestException):  # nothing listens yet
                answer = requests.post(self.url, data=self.picture, headers=headers, timeout=60)
                if not find_faults(answer, self._golden):
                    return
            time.sleep(POLL_S)
        raise VisionServingError("the server gave no golden answer; the archive must have one")


def drain(
    answers: Answers, process: "subprocess.Popen[bytes]", clients: int, image: str | None
) -> tuple[Counter[str], float]:
    """End a server under load. Return how often each outcome came, and the seconds."""
    outcomes: list[str] = []
    arguments = (answers.url, answers.picture, outcomes)
    threads = [threading.Thread(target=ask_until_refused, args=arguments) for _ in range(clients)]
    for thread in threads:
        thread.start()
    time.sleep(LOAD_S)
    began = time.monotonic()
    if image is None:
        process.send_signal(signal.SIGTERM)
    else:
        ask_podman("stop", "--time", str(STOP_S), CONTAINER)
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
