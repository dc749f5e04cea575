"""Start, stop and look at the TorchServe of config.properties.

    python scripts/serve_models.py start
    python scripts/serve_models.py status --json
    python scripts/serve_models.py restart
    python scripts/serve_models.py watch
    python scripts/serve_models.py run
    python scripts/serve_models.py stop
    python scripts/serve_models.py stop --drain --drain-timeout-s 30

`start` equals `torchserve --start --ncs --ts-config config.properties` with Java found, PYTHONPATH clean and a
temporary folder of its own. It returns when every model has given the golden prediction of its archive. What cannot be
served is named, with exit status 1, and the others are served. `status` and scripts/health_probe.py check the same.

`watch` starts the server where it does not run, stays, and starts it again when its frontend ends, falls silent or does
little but collect memory.

`run` starts it too and stays, as the main process of a container or a service: logs go to standard output, SIGTERM
and SIGINT drain, a second one stops at once. Exit status: 0, it was stopped; 1, it could not start; 3, the frontend
ended or showed a fault; 4, it was stopped before all was answered.

With --drain, the server answers requests that were sent before, refuses further ones by a 503, and stops then.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from mar_tools.command_line import ROOT, Announce, new_parser, not_negative, positive, print_json, run
from mar_tools.serving.foreground import run_in_foreground, running_lock
from mar_tools.serving.health import Health, check_server
from mar_tools.serving.metrics_exporter import find_silence
from mar_tools.serving.model_status import find_differences
from mar_tools.serving.server import Server
from mar_tools.serving.start_record import mark_stopped
from mar_tools.serving.state_option import add_state_option
from mar_tools.serving.torchserve_api import ServerError
from mar_tools.serving.watching import watch
from mar_tools.terminal import Table, name_column, new_table, number_column, print_tables, show_work
from vision_serving.cores import WAIT_POLICY


def main() -> None:
    arguments = parse_arguments()
    if arguments.action == "run":
        sys.exit(run_in_foreground(arguments.config, arguments.timeout_s, arguments.drain_timeout_s))
    server = Server(arguments.config)
    if arguments.action == "stop":
        mark_stopped(server.config)
        with show_work("stopping TorchServe", silent_elsewhere=True) as announce:
            was_running = stop(server, arguments, announce)
        print("stopped" if was_running else "nothing was running")
        return
    if arguments.action == "watch":
        watch(server, arguments.timeout_s, lambda text: warn(f"{datetime.now():%Y-%m-%d %H:%M:%S} {text}"))
        print("stopped by another command")
        return
    found = act(server, arguments)
    show(found, arguments)
    if not found:
        raise ServerError("the server runs and has no models; register one with manage_models.py, or stop it")
    bad = [model for model in found if not model.healthy]
    if bad:
        raise ServerError("; ".join(map(str, bad)))


def act(server: Server, arguments: argparse.Namespace) -> list[Health]:
    if arguments.action == "status":
        found = check_server(server.config, time.monotonic() + arguments.answer_timeout_s)
        if (silence := find_silence(server.config)) is not None:
            warn(silence)
        return found
    with show_work("starting TorchServe", silent_elsewhere=True) as announce:
        if arguments.action == "start":
            return server.start(arguments.timeout_s, announce, warn)
        with running_lock(server):
            return server.restart(lambda: stop(server, arguments, announce), arguments.timeout_s, announce, warn)


def warn(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def parse_arguments() -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("action", choices=("start", "stop", "restart", "status", "watch", "run"))
    parser.add_argument(
        "--config", type=Path, metavar="FILE", default=ROOT / "config.properties", help="the server's settings"
    )
    add_state_option(parser)
    parser.add_argument("--timeout-s", type=positive, metavar="S", default=180.0, help="for a start (default: 180)")
    parser.add_argument(
        "--answer-timeout-s", type=positive, metavar="S", default=10.0, help="for a status (default: 10)"
    )
    parser.add_argument("--drain", action="store_true", help="stop, restart: answer what was asked before")
    parser.add_argument(
        "--drain-timeout-s", type=not_negative, metavar="S", default=30.0, help="for --drain and run (default: 30)"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser.parse_args()


def stop(server: Server, arguments: argparse.Namespace, announce: Announce) -> bool:
    if not arguments.drain:
        return server.stop()
    from mar_tools.serving.graceful_stop import stop_drained

    return stop_drained(server, arguments.drain_timeout_s, announce)


def show(found: Sequence[Health], arguments: argparse.Namespace) -> None:
    if arguments.json:
        print_json([model.as_document() for model in found])
    else:
        print_tables(health_table(found))
        if arguments.action != "status":
            print("OMP_WAIT_POLICY of the workers:", {**WAIT_POLICY, **os.environ}["OMP_WAIT_POLICY"])
    served = [model.status for model in found if model.status is not None]
    for difference in find_differences(served, arguments.config.read_text(encoding="utf-8")):
        print(f"differs from {arguments.config.name}: {difference}", file=sys.stderr)


def health_table(found: Sequence[Health]) -> Table:
    figures = map(number_column, ("workers\nready", "batch\nsize", "delay\nms"))
    heads = ("\ngolden", "\ndevice", "threads\nrun+decode")
    table = new_table(name_column("\nmodel"), "\nversion", *figures, *heads, gap=1)
    for model in found:
        status = model.status
        if status is None:
            table.add_row(model.model, "", "", "", "", "not served")
            continue
        workers = f"{status.workers_ready} of {status.workers}"
        batches = (str(status.batch_size), str(status.max_batch_delay_ms))
        threads = f"{status.threads.engine}+{status.threads.decode}" + " pinned" * status.threads.pin
        table.add_row(model.model, model.version, workers, *batches, model.golden, status.device, threads)
    return table


if __name__ == "__main__":
    run(main)
