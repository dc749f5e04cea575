"""Start, stop and look at the TorchServe of config.properties.

    python scripts/serve_models.py start
    python scripts/serve_models.py status --json
    python scripts/serve_models.py restart
    python scripts/serve_models.py stop

`start` equals `torchserve --start --ncs --ts-config config.properties` with Java found, PYTHONPATH clean and a
temporary folder of its own; it returns when every model has answered a prediction.
"""

import os
from dataclasses import asdict
from pathlib import Path

import orjson
from rich.console import Console
from rich.table import Column, Table

from mar_tools.command_line import ROOT, new_parser, run
from mar_tools.drift import find_differences
from mar_tools.server import ModelStatus, Server
from vision_serving.resources import WAIT_POLICY


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("action", choices=("start", "stop", "restart", "status"))
    parser.add_argument("--config", type=Path, default=ROOT / "config.properties", help="the server's settings")
    parser.add_argument("--timeout-s", type=float, default=180.0, help="how long start may take")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    server = Server(arguments.config)
    if arguments.action in ("stop", "restart"):
        was_running = server.stop()
        if arguments.action == "stop":
            print("stopped" if was_running else "nothing was running")
            return
    models = start(server, arguments.timeout_s) if arguments.action != "status" else server.status()
    if arguments.json:
        print(orjson.dumps([{**asdict(model), "ready": model.ready} for model in models]).decode())
    else:
        Console().print(status_table(models))
        if arguments.action != "status":
            print("OMP_WAIT_POLICY of the workers:", {**WAIT_POLICY, **os.environ}["OMP_WAIT_POLICY"])
    for difference in find_differences(models, arguments.config.read_text(encoding="utf-8")):
        Console(stderr=True).print(f"[yellow]differs from {arguments.config.name}:[/] {difference}", soft_wrap=True)


def start(server: Server, timeout_s: float) -> list[ModelStatus]:
    with Console(stderr=True).status("starting TorchServe") as status:
        return server.start(timeout_s, lambda step: status.update(step))


def status_table(models: list[ModelStatus]) -> Table:
    columns = ("version", "workers ready", "threads each", "batch", "delay ms", "device")
    table = Table(Column("model", overflow="fold"), *columns)
    for entry in models:
        workers = f"{entry.workers_ready} of {entry.workers}"
        plan = (str(entry.threads), str(entry.batch_size), str(entry.max_batch_delay_ms))
        table.add_row(entry.model, entry.version, workers, *plan, entry.device)
    return table


if __name__ == "__main__":
    run(main)
