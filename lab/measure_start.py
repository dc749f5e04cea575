"""From `serve_models.py start` until the first right answer, in turns with TorchServe and its stock handler.

    python lab/measure_start.py resnet50 --config lab/config.properties \
        --export lab/exports/resnet50/openvino-int8 --rounds 5 --json start.json
"""

import runpy
import statistics
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":  # outside the environment, this names the command that helps
    runpy.run_path(str(Path(__file__).parents[1] / "scripts/mar_tools/__init__.py"))

import orjson
import requests
from rich.console import Console

from mar_tools.command_line import ROOT, new_parser, run
from mar_tools.serving.ports import find_free_ports
from mar_tools.serving.server import Server
from vision_serving.errors import VisionServingError

if TYPE_CHECKING:  # it imports PyTorch, which --help needs not
    from mar_tools.load_testing.targets import Request


class WrongAnswerError(VisionServingError):
    """The server started, but does not answer rightly."""


def main() -> None:
    arguments = parse_arguments()
    from lab.peers.contest import expect
    from mar_tools.load_testing.images import load_test_images
    from mar_tools.load_testing.reporting import describe_run
    from mar_tools.load_testing.targets import prepare_requests

    images = load_test_images(1)
    probe, stock_probe = (
        prepare_requests(images, expected=expect(arguments.export, images, eager))[0] for eager in (False, True)
    )
    rounds = []
    for number in range(arguments.rounds):
        Console(stderr=True).print(f"round {number + 1} of {arguments.rounds}")
        ours_s = time_our_start(Server(arguments.config), arguments.model, probe)
        stock_s = time_stock_start(arguments.export, stock_probe)
        rounds.append({"ours_s": round(ours_s, 2), "stock_s": round(stock_s, 2)})
    ours, stock = (statistics.median(entry[name] for entry in rounds) for name in ("ours_s", "stock_s"))
    document = describe_run(rounds=rounds, ours_s=ours, stock_s=stock, ratio=round(ours / stock, 3))
    arguments.json.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))
    print(f"ours {ours:.2f} s, stock {stock:.2f} s: {ours / stock:.2f} of its time")


def parse_arguments() -> Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("model", help="its name in the settings' model store")
    parser.add_argument("--export", type=Path, required=True, help="of the same model; eager fp32 lies beside it")
    parser.add_argument("--config", type=Path, default=ROOT / "config.properties")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, required=True)
    return parser.parse_args()


def time_our_start(server: Server, model: str, probe: "Request") -> float:
    """Raises CalledProcessError or WrongAnswerError."""
    from lab.peers.peers import PROBE_TIMEOUT_S
    from mar_tools.load_testing.served import find_served_models

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


def time_stock_start(export: Path, probe: "Request") -> float:
    """Time TorchServe as it is out of the box: a worker for each core. Raises PeerError."""
    from lab.peers.peers import ServerSettings, find_peers, run_peer

    with run_peer(find_peers()["stock"], "default", export, find_free_ports(1)[0], ServerSettings(), probe) as target:
        return target.seconds_to_ready


if __name__ == "__main__":
    run(main)
