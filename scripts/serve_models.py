"""Start, stop and look at the TorchServe of config.properties.

    python scripts/serve_models.py start
    python scripts/serve_models.py status --json
    python scripts/serve_models.py restart
    python scripts/serve_models.py stop
    python scripts/serve_models.py stop --drain --drain-timeout-s 30

`start` equals `torchserve --start --ncs --ts-config config.properties` with Java found, PYTHONPATH clean and a
temporary folder of its own; it returns when every model has given the golden prediction of its archive. What cannot be
served is named, with exit status 1, and the others are served. `status` and scripts/health_probe.py check the same.
With --drain, requests that were sent before are answered, and further ones refused by a 503, before the server stops.
"""

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path

import orjson
from rich import box
from rich.console import Console
from rich.table import Column, Table

from mar_tools.command_line import ROOT, new_parser, run
from mar_tools.serving.archive_choice import choose_archives
from mar_tools.serving.config_drift import find_differences
from mar_tools.serving.health import Health, check_server
from mar_tools.serving.server import Server
from mar_tools.serving.torchserve_api import ServerError
from vision_serving.cores import WAIT_POLICY


def main() -> None:
    arguments = parse_arguments()
    server = Server(arguments.config)
    if arguments.action == "restart":
        choose_archives(server.config)  # what cannot be started again is not stopped
    if arguments.action in ("stop", "restart"):
        was_running = stop(server, arguments)
        if arguments.action == "stop":
            print("stopped" if was_running else "nothing was running")
            return
    if arguments.action == "status":
        found = check_server(server.config, time.monotonic() + arguments.answer_timeout_s)
    else:
        found = start(server, arguments.timeout_s)
    show(found, arguments)
    if not found:
        raise ServerError("the server has no models")
    bad = [model for model in found if not model.healthy]
    if bad:
        raise ServerError("; ".join(map(str, bad)))


def parse_arguments() -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("action", choices=("start", "stop", "restart", "status"))
    parser.add_argument("--config", type=Path, default=ROOT / "config.properties", help="the server's settings")
    parser.add_argument("--timeout-s", type=float, default=180.0, help="how long start may take")
    parser.add_argument("--answer-timeout-s", type=float, default=10.0, help="how long status waits for predictions")
    parser.add_argument("--drain", action="store_true", help="stop, restart: answer what was asked before")
    parser.add_argument("--drain-timeout-s", type=float, default=30.0, help="how long that may take (default: 30)")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def start(server: Server, timeout_s: float) -> list[Health]:
    console = Console(stderr=True)
    with console.status("starting TorchServe") as status:
        return server.start(
            timeout_s,
            lambda step: status.update(step),
            lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True),
        )


def stop(server: Server, arguments: argparse.Namespace) -> bool:
    if not arguments.drain:
        return server.stop()
    from mar_tools.serving.graceful_stop import stop_drained

    with Console(stderr=True).status("draining") as status:
        return stop_drained(server, arguments.drain_timeout_s, lambda step: status.update(step))


def show(found: Sequence[Health], arguments: argparse.Namespace) -> None:
    if arguments.json:
        print(orjson.dumps([model.as_document() for model in found]).decode())
    else:
        Console().print(health_table(found))
        if arguments.action != "status":
            print("OMP_WAIT_POLICY of the workers:", {**WAIT_POLICY, **os.environ}["OMP_WAIT_POLICY"])
    served = [model.status for model in found if model.status is not None]
    for difference in find_differences(served, arguments.config.read_text(encoding="utf-8")):
        Console(stderr=True).print(f"[yellow]differs from {arguments.config.name}:[/] {difference}", soft_wrap=True)


def health_table(found: Sequence[Health]) -> Table:
    columns = ("version", "workers ready", "golden", "threads each", "batch", "delay ms", "device")
    table = Table(Column("model", overflow="fold", min_width=14), *columns, box=box.SIMPLE, pad_edge=False)
    for model in found:
        status = model.status
        if status is None:
            table.add_row(model.model, "", "not served")
            continue
        workers = f"{status.workers_ready} of {status.workers}"
        plan = (str(status.threads), str(status.batch_size), str(status.max_batch_delay_ms))
        table.add_row(model.model, model.version, workers, model.golden, *plan, status.device)
    return table


if __name__ == "__main__":
    run(main)
