"""Show what a .mar says of itself, what is in it, and whether it can be trusted; without a server.

    python scripts/inspect_archive.py model_store/digits.mar               its model card
    python scripts/inspect_archive.py model_store/digits.mar --json
    python scripts/inspect_archive.py model_store/digits.mar --contents    every file and its SHA-256; the signature
    python scripts/inspect_archive.py model_store/digits.mar --verify      exit status 0 if whole, unchanged and ours
    python scripts/inspect_archive.py model_store/digits.mar --diff before/digits.mar

docs/operate/archives.md says what --verify checks. A running model shows its card, and its device:
python scripts/manage_models.py describe digits --card
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
from rich import box
from rich.console import Console, RenderableType
from rich.table import Column, Table

from mar_tools.archives.archive import Archive, open_archive
from mar_tools.archives.checks import verify_archive
from mar_tools.archives.contents import Difference, find_changes, list_contents
from mar_tools.archives.model_cards import card_table, read_card
from mar_tools.command_line import MODEL_STORE, new_parser, run
from vision_serving.errors import ConfigError


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("archive", type=Path, help="a .mar file, or its name in model_store")
    parser.add_argument("--json", action="store_true", help="print all of it as JSON")
    views = parser.add_mutually_exclusive_group()
    views.add_argument("--contents", action="store_true", help="list the files")
    views.add_argument("--verify", action="store_true", help="check that it is whole, unchanged and ours")
    views.add_argument("--diff", type=Path, metavar="BEFORE", help="what differs from this archive")
    given = parser.parse_args()
    archive = find_archive(given.archive)
    if given.contents:
        show(describe(open_archive(archive)), contents_table, given.json)
    elif given.verify:
        show(summarise(verify_archive(archive)), summary, given.json)
    elif given.diff:
        changes = find_changes(open_archive(find_archive(given.diff)), open_archive(archive))
        show([vars(change) for change in changes], lambda _: changes_table(changes), given.json)
    else:
        show(read_card(archive), card_table, given.json)


def find_archive(path: Path) -> Path:
    named = MODEL_STORE / path
    return path if path.exists() or not named.exists() else named


def show(value: Any, render: Callable[[Any], RenderableType], as_json: bool) -> None:
    if as_json:
        print(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())
    else:
        Console().print(render(value), soft_wrap=isinstance(value, dict))


def summarise(archive: Archive) -> dict[str, Any]:
    model, version = archive.identity
    return {"model": model, "version": version, "sha256": archive.sha256, "signature": describe_signature(archive)}


def describe(archive: Archive) -> dict[str, Any]:
    return {**summarise(archive), "ours": archive.is_ours, "files": list_contents(archive)}


def describe_signature(archive: Archive) -> dict[str, Any]:
    """Describe which key it is of, and whether it is of these bytes.

    Sign_archive.py verify says whether to trust the key.
    """
    from mar_tools.archives.signing import read_signature, signature_path

    if not signature_path(archive.path).is_file():
        return {"state": "unsigned"}
    try:
        found = read_signature(archive.path)
    except ConfigError as error:
        return {"state": "unusable", "reason": str(error)}
    matches = (found.sha256, found.model, found.version) == (archive.sha256, *archive.identity)
    return {"state": "names this archive" if matches else "names another archive", "key_id": found.key_id}


def summary(found: dict[str, Any]) -> str:
    signature = found["signature"]
    signed = f"{signature['state']}, {signature['key_id']}" if "key_id" in signature else signature["state"]
    return f"{found['model']} {found['version']}: whole and unchanged\nSHA-256 {found['sha256']}\nsignature: {signed}"


def contents_table(found: dict[str, Any]) -> Table:
    digest = Column("SHA-256", overflow="fold", min_width=32)  # whole: it is there to be compared
    table = Table(Column("file", overflow="fold"), Column("bytes", justify="right"), digest, box=box.SIMPLE)
    for file in found["files"]:
        table.add_row(file["name"], f"{file['bytes']:,}", file["sha256"])
    table.caption = f"archive: SHA-256 {found['sha256']}; signature: {found['signature']['state']}"
    return table


def changes_table(changes: list[Difference]) -> RenderableType:
    if not changes:
        return "no difference"
    table = Table("what", Column("name", overflow="fold"), "before", "after", box=box.SIMPLE)
    for change in changes:
        table.add_row(change.kind, change.name, *(_brief(side) for side in (change.before, change.after)))
    return table


def _brief(value: Any) -> str:
    return "-" if value is None else str(value)[:40]


if __name__ == "__main__":
    run(main)
