"""What lab/measure_start.py does."""

import statistics
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import orjson
import requests
from rich.console import Console

from lab.peers.contest import expect
from lab.peers.peers import PROBE_TIMEOUT_S, ServerSettings, find_peers, run_peer
from mar_tools.command_line import ROOT
from mar_tools.load_testing.images import load_test_images
from mar_tools.load_testing.reporting import describe_run
from mar_tools.load_testing.served import find_served_models
from mar_tools.load_testing.targets import Request, prepare_requests
from mar_tools.serving.ports import find_free_ports
from mar_tools.serving.server import Server
from vision_serving.errors import VisionServingError


def measure_start(arguments: Namespace) -> None:
    """Start both servers in turns; write and print the times."""
    images = load_test_images(1)
    probe, stock_probe = (
        prepare_requests(images, expected=expect(arguments.export, images, eager))[0] for eager in (False, True)
    )
    rounds = []
    for number in range(arguments.rounds):
        Console(stderr=True).print(f"round {number + 1} of {arguments.rounds}")
        ours_s = time_our_start(Server(arguments.config), arguments.model, probe)
        rounds.append(
            {"ours_s": round(ours_s, 2), "stock_s": round(time_stock_start(arguments.export, stock_probe), 2)}
        )
    ours, stock = (statistics.median(entry[name] for entry in rounds) for name in ("ours_s", "stock_s"))
    document = describe_run(rounds=rounds, ours_s=ours, stock_s=stock, ratio=round(ours / stock, 3))
    arguments.json.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))
    print(f"ours {ours:.2f} s, stock {stock:.2f} s: {ours / stock:.2f} of its time")


class WrongAnswerError(VisionServingError):
    """The server started, but does not answer rightly."""


def time_our_start(server: Server, model: str, probe: Request) -> float:
    """Raises CalledProcessError or WrongAnswerError."""
    command = [sys.executable, str(ROOT / "scripts" / "serve_models.py"), "start", "--config", str(server.config)]
    started = time.monotonic()
    try:
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        (served,) = find_served_models(server, [model])
        headers = {**served.target.headers, **probe.headers}
        answer = requests.post(served.target.url, data=probe.body, headers=headers, timeout=PROBE_TIMEOUT_S)
        seconds = time.monotonic() - started
    finally:
        server.stop()
    if answer.status_code != requests.codes.ok or not probe.is_right(answer.content):
        raise WrongAnswerError(f"{model}: expected a right answer, got {answer.status_code} {answer.text[:300]}")
    return seconds


def time_stock_start(export: Path, probe: Request) -> float:
    """Time TorchServe as it is out of the box: a worker for each core. Raises PeerError."""
    with run_peer(find_peers()["stock"], "default", export, find_free_ports(1)[0], ServerSettings(), probe) as target:
        return target.seconds_to_ready
