"""Save what a server cannot make again into one file, and restore it, here or on another machine.

    python scripts/back_up.py save vision.tar
    python scripts/back_up.py list vision.tar
    python scripts/back_up.py restore vision.tar

A backup holds the settings (config.properties, log4j2.xml, front.yaml), the archives of the model store, the keys that
archives are checked with, and of the front the digests of its clients' keys, its own certificate and local/*.conf. It
holds the certificate's private key: keep it as safe as that. Tokens, logs and exports are made anew, and are not in it.

`save` may run while the server does. `restore` wants it stopped, checks every file first, and replaces no other content
without --force.
"""

import argparse
import tempfile
from pathlib import Path

from mar_tools.command_line import ROOT, new_parser, print_json, run
from mar_tools.serving.state_option import add_state_option
from mar_tools.terminal import name_column, new_table, print_tables
from mar_tools.upkeep.backups import Manifest, restore, save, unpack


def main() -> None:
    parser = new_parser(__doc__)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, text in (
        ("save", "write a backup"),
        ("restore", "put all of a backup in its places"),
        ("list", "what a backup holds, and whether it is whole"),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument("file", type=Path, help="the backup")
        action.add_argument("--json", action="store_true", help="print the files with their SHA-256")
        if name != "list":
            action.add_argument("--config", type=Path, metavar="FILE", default=ROOT / "config.properties")
            add_state_option(action)
    actions.choices["save"].add_argument(
        "--with-samples", action="store_true", help="sampled predictions too: perhaps pictures of people"
    )
    actions.choices["restore"].add_argument("--force", action="store_true", help="replace files of another content")
    given = parser.parse_args()
    ACTIONS[given.action](given)


def run_save(given: argparse.Namespace) -> None:
    manifest = save(given.config, given.file, given.with_samples)
    tell(manifest, given)
    if not given.json:
        print(f"saved {len(manifest.files)} files in {given.file}")


def run_list(given: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="backup-") as folder:
        tell(unpack(given.file, Path(folder)), given)


def run_restore(given: argparse.Namespace) -> None:
    targets = restore(given.file, given.config, given.force)
    if given.json:
        print_json({name: str(path) for name, path in targets.items()})
    else:
        print(f"restored {len(targets)} files of {given.file}; next: python scripts/serve_models.py start")


def tell(manifest: Manifest, given: argparse.Namespace) -> None:
    if given.json:
        print_json(manifest.model_dump())
        return
    table = new_table(name_column("file"), "mode", "SHA-256", title=f"saved {manifest.saved}")
    for name, saved in manifest.files.items():
        table.add_row(name, saved.mode, saved.sha256[:16])
    print_tables(table)


ACTIONS = {"save": run_save, "restore": run_restore, "list": run_list}

if __name__ == "__main__":
    run(main)
