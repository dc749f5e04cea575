"""A front for others: nginx with HTTPS, client keys and limits before the TorchServe of config.properties.

    python scripts/serve_front.py start                  # prints the first client's key, once
    python scripts/serve_front.py add-client camera-7    # prints its key, once
    python scripts/serve_front.py remove-client camera-7
    python scripts/serve_front.py run                    # stays, as the main process of a container or a service
    python scripts/serve_front.py reload
    python scripts/serve_front.py status --json
    python scripts/serve_front.py stop

`reload` takes up a change of front.yaml, nginx.conf or a certificate. `stop` first answers all that is under way. The
front runs as you, without root, and keeps all it writes in front/ of the server's state folder, or in `--folder`.
deploy/nginx/front.yaml has its settings, docs/operate/front.md says what it does.
"""

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from mar_tools.command_line import ROOT, new_parser, print_json, run
from mar_tools.front.front import SETTINGS, Front
from mar_tools.serving.server import Server
from mar_tools.serving.state_option import add_state_option
from vision_serving.worker.server_settings import state_folder


def main() -> None:
    given = new_command_parser().parse_args()
    _, act = ACTIONS[given.action]
    folder = given.folder or state_folder(given.config) / "front"
    act(Front(folder, given.settings, given.config), given)


def new_command_parser() -> argparse.ArgumentParser:
    parser = new_parser(__doc__)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, (text, _) in ACTIONS.items():
        action = actions.add_parser(name, help=text)
        if name in ("add-client", "remove-client"):
            action.add_argument("name", help="as the log has it; the limits are of each name")
        action.add_argument("--folder", type=Path, help="keys, certificate, logs, configuration")
        action.add_argument("--settings", type=Path, metavar="FILE", default=SETTINGS, help="limits and addresses")
        action.add_argument("--config", type=Path, default=ROOT / "config.properties", help="TorchServe's settings")
        add_state_option(action)
        action.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def start(front: Front, given: argparse.Namespace) -> None:
    key = front.start()
    if os.geteuid() == 0:
        print("note: you are root, so nginx's workers are too; start it as an ordinary user", file=sys.stderr)
    if given.json:
        print_json({**asdict(front.status()), "key": key})
        return
    print(f"listens at {front.url}")
    if key:
        print(f"key of the client 'first', which is kept nowhere: {key}")
    if front.machines is None and Server(given.config).process() is None:
        print("TorchServe does not run yet: until it does, predictions are 503; python scripts/serve_models.py start")


def run_here(front: Front, given: argparse.Namespace) -> None:
    if front.asks_for_keys and not front.clients.names():
        print("no client has a key yet; python scripts/serve_front.py add-client NAME prints one", file=sys.stderr)
    front.become_nginx()


def add_client(front: Front, given: argparse.Namespace) -> None:
    key = front.clients.add(given.name)
    reload_if_running(front)
    if given.json:
        print_json({"name": given.name, "key": key})
    else:
        print(key)


def remove_client(front: Front, given: argparse.Namespace) -> None:
    front.clients.remove(given.name)
    reload_if_running(front)
    print(f"the key of {given.name} is valid no more")


def reload_if_running(front: Front) -> None:
    if front.settled_process() is not None:
        front.reload()


def reload(front: Front, given: argparse.Namespace) -> None:
    front.reload()
    print(f"reloaded; listens at {front.url}")


def stop(front: Front, given: argparse.Namespace) -> None:
    print("stopped" if front.stop() else "nothing was running")


def show_status(front: Front, given: argparse.Namespace) -> None:
    status = front.status()
    if given.json:
        print_json(asdict(status))
        return
    print(f"nginx {status.nginx}, {f'pid {status.pid}, {status.url}' if status.pid else 'not running'}")
    print(f"clients: {', '.join(status.clients) or 'none'}")
    for address, state in status.machines.items():
        print(f"machine {address}: {state}")


ACTIONS: dict[str, tuple[str, Callable[[Front, argparse.Namespace], None]]] = {
    "start": ("start nginx, and print the first client's key once", start),
    "run": ("become nginx, and give no client a key; SIGQUIT stops it as `stop` does", run_here),
    "stop": ("stop when all that is under way is answered", stop),
    "reload": ("take up a change of front.yaml, nginx.conf or a certificate", reload),
    "status": ("whether it runs, where, and for which clients", show_status),
    "add-client": ("print the key of a new client, once", add_client),
    "remove-client": ("end the key of a client", remove_client),
}


if __name__ == "__main__":
    run(main)
