"""Manage the models of a running server.

    python scripts/manage_models.py list
    python scripts/manage_models.py describe digits
    python scripts/manage_models.py register resnet50.mar --workers 1 --batch-size 8 --max-batch-delay 2
    python scripts/manage_models.py scale digits --workers 2
    python scripts/manage_models.py set-default digits 2.0
    python scripts/manage_models.py unregister resnet50 --version 1.0
    python scripts/manage_models.py token inference

Tokens are read from key_file.json beside config.properties and renewed when they have expired. What `register` and
`scale` change lasts until the server stops; config.properties is what lasts.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from mar_tools.command_line import ROOT, new_parser, run
from mar_tools.torchserve_api import TorchServeClient, read_address


def main() -> None:
    arguments = new_command_parser().parse_args()
    client = TorchServeClient(read_address(arguments.config))
    result = ACTIONS[arguments.action](client, arguments)
    if isinstance(result, str) or (arguments.action == "list" and not arguments.json):
        print(result if isinstance(result, str) else "\n".join(result))
    elif isinstance(result, dict) and "status" in result and not arguments.json:
        print(result["status"])
    else:
        print(orjson.dumps(result, option=orjson.OPT_INDENT_2).decode())


def new_command_parser() -> argparse.ArgumentParser:
    parser = new_parser(__doc__)
    parser.add_argument("--config", type=Path, default=ROOT / "config.properties")
    parser.add_argument("--json", action="store_true", help="print what the server answered")
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("list")
    for name in ("describe", "unregister", "scale"):
        action = actions.add_parser(name)
        action.add_argument("model")
        action.add_argument("--version")
        if name == "scale":
            action.add_argument("--workers", type=int, required=True)
    register = actions.add_parser("register")
    register.add_argument("archive", help="a file name in the model store")
    register.add_argument("--workers", type=int, default=1)
    register.add_argument("--batch-size", type=int, default=1)
    register.add_argument("--max-batch-delay", type=int, default=2, help="milliseconds")
    set_default = actions.add_parser("set-default")
    set_default.add_argument("model")
    set_default.add_argument("version")
    token = actions.add_parser("token")
    token.add_argument("kind", choices=("inference", "management"))
    token.add_argument("--renew", action="store_true")
    return parser


def register(client: TorchServeClient, arguments: argparse.Namespace) -> Any:
    parameters = {
        "initial_workers": str(arguments.workers),
        "batch_size": str(arguments.batch_size),
        "max_batch_delay": str(arguments.max_batch_delay),
        "synchronous": "true",
    }
    return client.register(arguments.archive, parameters)


ACTIONS: dict[str, Callable[[TorchServeClient, argparse.Namespace], Any]] = {
    "list": lambda client, _: client.list_models(),
    "describe": lambda client, given: client.describe(given.model, given.version),
    "register": register,
    "scale": lambda client, given: client.scale(given.model, given.version, given.workers),
    "unregister": lambda client, given: client.unregister(given.model, given.version),
    "set-default": lambda client, given: client.set_default(given.model, given.version),
    "token": lambda client, given: client.renew_token(given.kind) if given.renew else client.token(given.kind),
}


if __name__ == "__main__":
    run(main)
