"""Manage the models of a running server.

    python scripts/manage_models.py list
    python scripts/manage_models.py describe digits
    python scripts/manage_models.py describe digits --card
    python scripts/manage_models.py register resnet50.mar
    python scripts/manage_models.py register resnet50.mar --workers 1 --batch-size 8 --max-batch-delay 2
    python scripts/manage_models.py upgrade digits_2.mar --watch-s 60 --write
    python scripts/manage_models.py rollback digits
    python scripts/manage_models.py scale digits --workers 2
    python scripts/manage_models.py set-default digits 2.0
    python scripts/manage_models.py unregister resnet50 --version 1.0
    python scripts/manage_models.py token inference

Tokens are read from key_file.json, beside config.properties or in its `vision_state`, and renewed when they have
expired. `register` takes from config.properties what is not given. What `register`, `scale` and `upgrade` change lasts
until the server stops. To make it last, write it into config.properties.

`upgrade` replaces the version that is served without a failed request. The new version starts beside the old one, with
its settings. When each worker has given the golden prediction, it gets the requests. After --watch-s the old one is
taken out. A new version that is no good is taken out again, and the exit status is 1. `rollback` takes the last upgrade
of a model back in the same way, however long ago it was.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from mar_tools.archives.model_cards import card_table
from mar_tools.command_line import ROOT, new_parser, print_json, run
from mar_tools.serving.address import read_address
from mar_tools.serving.archive_choice import check_registered, register_checked
from mar_tools.serving.config_file import model_section, rewrite
from mar_tools.serving.scaling import scale
from mar_tools.serving.server import Server
from mar_tools.serving.state_option import add_state_option
from mar_tools.serving.torchserve_api import TorchServeClient
from mar_tools.serving.upgrade_config import advise, lasting_properties, name_version
from mar_tools.serving.upgrade_record import check_can_return, read_upgrade, record_upgrade
from mar_tools.serving.upgrading import Plan, Upgrade, plan_upgrade
from mar_tools.terminal import Table, new_table, number_column, print_tables, show_work
from mar_tools.tuning.rule import BATCH_SIZE, DELAY_MS
from vision_serving.worker.server_settings import read_text, read_workers

MOST_WORKERS = 64


def main() -> None:
    arguments = new_command_parser().parse_args()
    client = TorchServeClient(read_address(arguments.config))
    result = ACTIONS[arguments.action](client, arguments)
    if isinstance(result, str):
        print(result)
    elif isinstance(result, Table):
        print_tables(result)
    elif arguments.action == "list" and not arguments.json:
        print("\n".join(result))
    elif isinstance(result, dict) and "status" in result and not arguments.json:
        print(result["status"])
    else:
        print_json(result, indent=True)


def new_command_parser() -> argparse.ArgumentParser:
    parser = new_parser(__doc__)
    add_common(parser, ROOT / "config.properties", False)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    models = {
        "describe": "what the server says of a model",
        "unregister": "take a model out of the server",
        "scale": "set the number of workers; the threads of each stay as config.properties says",
        "set-default": "choose the version that answers without one in the path",
    }
    for name, text in models.items():
        action = actions.add_parser(name, help=text)
        action.add_argument("model")
        action.add_argument(*(["version"] if name == "set-default" else ["--version"]))
        if name == "describe":
            action.add_argument("--card", action="store_true", help="what the model's archive says of it")
        if name == "scale":
            action.add_argument("--workers", type=worker_count(0), metavar="0..64", required=True)
    add_upgrade(actions.add_parser("upgrade", help="serve a new version in the place of the old one"))
    rollback_action = actions.add_parser("rollback", help="serve again what the last upgrade of a model replaced")
    rollback_action.add_argument("model")
    add_watch(rollback_action)
    register_action = actions.add_parser("register", help="serve an archive of the model store")
    register_action.add_argument("archive", help="its file name in the server's model store")
    for option in ("--workers", "--batch-size", "--max-batch-delay"):
        text = "milliseconds to wait for a batch to fill" if option == "--max-batch-delay" else ""
        register_action.add_argument(option, type=int, choices=range(1, 10001), metavar="N", help=text)
    token = actions.add_parser("token", help="print a token, or renew it")
    token.add_argument("kind", choices=("inference", "management"))
    token.add_argument("--renew", action="store_true", help="ask the server for a new one; the old one ends")
    actions.add_parser("list", help="the names of the models")
    for action in actions.choices.values():
        add_common(action, argparse.SUPPRESS, argparse.SUPPRESS)
    return parser


def add_upgrade(action: argparse.ArgumentParser) -> None:
    action.add_argument("archive", help="its file name in the server's model store")
    action.add_argument("--workers", type=worker_count(1), metavar="1..64", help="default: as the old one")
    add_watch(action)
    action.add_argument("--keep-old", action="store_true", help="go on serving the old version by its number")
    action.add_argument("--write", action="store_true", help="make it last: write it into config.properties")


def add_watch(action: argparse.ArgumentParser) -> None:
    action.add_argument("--watch-s", type=float, default=30.0, help="seconds until the old version is taken out")
    action.add_argument(
        "--max-failed-share", type=float, default=0.02, help="of the answers, above what was usual (default: 0.02)"
    )


def worker_count(least: int) -> Callable[[str], int]:
    """Return the type of an argument."""

    def workers(text: str) -> int:
        if not text.isdigit() or not least <= int(text) <= MOST_WORKERS:
            raise argparse.ArgumentTypeError(f"expected {least} to {MOST_WORKERS}, got {text!r}")
        return int(text)

    return workers


def add_common(parser: argparse.ArgumentParser, config: object, as_json: object) -> None:
    """Add options that may stand before or after the action."""
    parser.add_argument("--config", type=Path, metavar="FILE", default=config, help="the server's config.properties")
    add_state_option(parser)
    parser.add_argument("--json", action="store_true", default=as_json, help="print what the server answered")


def describe(client: TorchServeClient, given: argparse.Namespace) -> Any:
    if given.card:
        card = client.describe_card(given.model, given.version)
        return card if given.json else card_table(card)
    versions = client.describe(given.model, given.version)
    return versions if given.json else workers_table(versions)


def workers_table(versions: Sequence[Mapping[str, Any]]) -> Table:
    """Lay out the workers of each version, with the requests that wait for them."""
    figures = map(number_column, ("\npid", "batch\nsize", "delay\nms", "requests\nwaiting"))
    table = new_table("\nversion", "\nworker", "\nstatus", *figures, "\ndevice", title=versions[0]["modelName"])
    for version in versions:
        waiting = str(version.get("jobQueueStatus", {}).get("pendingRequests", ""))
        served = (str(version["batchSize"]), str(version["maxBatchDelay"]), waiting, version["deviceType"])
        if not version["workers"]:
            table.add_row(version["modelVersion"], "none", "", "", *served)
        for worker in version["workers"]:
            table.add_row(version["modelVersion"], worker["id"], worker["status"], str(worker["pid"]), *served)
    return table


def register(client: TorchServeClient, given: argparse.Namespace) -> Any:
    """Register with what was given, else with what `models` says, else with what suits a machine of any size."""
    archive = check_registered(given.config, given.archive)
    properties = read_text(given.config)
    named = model_section(properties, *archive.identity)
    workers = given.workers or max(1, read_workers(properties, *archive.identity))
    batch_size = given.batch_size or int(named.get("batchSize", BATCH_SIZE["cpu"]))
    delay_ms = given.max_batch_delay or int(named.get("maxBatchDelay", DELAY_MS["cpu"]))
    return register_checked(client, archive, workers, batch_size, delay_ms)


def upgrade(client: TorchServeClient, given: argparse.Namespace) -> Any:
    plan = plan_upgrade(client, given.config, given.archive, given.workers)
    return carry_out(client, plan, given, given.keep_old, given.write)


def carry_out(client: TorchServeClient, plan: Plan, given: argparse.Namespace, keep_old: bool, write: bool) -> Any:
    written = lasting_properties(given.config, plan) if write else nullcontext()
    with show_work("upgrading") as announce, written:
        done = Upgrade(client, given.config, plan, announce).run(given.watch_s, given.max_failed_share, keep_old)
    record_upgrade(given.config, plan, write)
    for advice in advise(given.config, done, write):
        print(advice, file=sys.stderr)
    return done.as_document()


def roll_back(client: TorchServeClient, given: argparse.Namespace) -> Any:
    """Upgrade to what served before, or choose it where it is served still."""
    record = read_upgrade(given.config, given.model)
    default = client.describe_default(given.model)
    check_can_return(record, given.model, Server(given.config).model_store(), default)
    archive = check_registered(given.config, record.old.archive)
    plan = Plan(archive, default, max(1, default["minWorkers"]))
    if record.old.version not in [entry["modelVersion"] for entry in client.describe(given.model)]:
        return carry_out(client, plan, given, False, record.written)
    client.set_default(given.model, record.old.version)
    if record.written:
        rewrite(given.config, lambda text: name_version(text, plan))
    record_upgrade(given.config, plan, record.written)
    return {"status": f"{given.model} {record.old.version} answers again; {record.new.version} is served by its number"}


ACTIONS: dict[str, Callable[[TorchServeClient, argparse.Namespace], Any]] = {
    "list": lambda client, _: client.list_models(),
    "describe": describe,
    "register": register,
    "scale": lambda client, given: scale(client, given.config, given.model, given.version, given.workers),
    "upgrade": upgrade,
    "rollback": roll_back,
    "unregister": lambda client, given: client.unregister(given.model, given.version),
    "set-default": lambda client, given: client.set_default(given.model, given.version),
    "token": lambda client, given: client.renew_token(given.kind) if given.renew else client.token(given.kind),
}


if __name__ == "__main__":
    run(main)
