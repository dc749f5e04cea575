"""Show what a .mar says of itself, what is in it, and whether it can be trusted; without a server.

    python scripts/inspect_archive.py digits.mar              # its model card
    python scripts/inspect_archive.py digits.mar --json
    python scripts/inspect_archive.py digits.mar --contents   # files, digests, signature
    python scripts/inspect_archive.py digits.mar --verify
    python scripts/inspect_archive.py digits.mar --diff before/digits.mar
    python scripts/inspect_archive.py digits.mar --report
    python scripts/inspect_archive.py digits.mar --report new.html --images photos --labels folders

--verify: exit status 0 if the archive is whole, unchanged and ours. docs/operate/archives.md says what it checks.

--report: a page to look at. An archive carries its figures and one picture. With --images its model answers others.

A running model shows its card and its device by `python scripts/manage_models.py describe digits --card`.
"""

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mar_tools.archives.archive import Archive, open_archive
from mar_tools.archives.checks import verify_archive
from mar_tools.archives.contents import Difference, find_changes, list_contents
from mar_tools.archives.model_cards import card_table, read_card
from mar_tools.command_line import EXPORTS, find_in_store, new_parser, print_json, run
from mar_tools.terminal import Table, Text, name_column, new_table, number_column, print_tables
from vision_serving.errors import ConfigError
from vision_serving.validation import parse_config

DEFAULT_REPORT = Path("archive-report.html")
TRUTH = ("images", "labels", "annotations", "count")


def main() -> None:
    given = parse_arguments()
    archive = find_in_store(given.archive)
    if given.contents:
        opened = open_archive(archive)
        found = {**summarise(opened), "ours": opened.is_ours, "files": list_contents(opened)}
        show(found, contents_table, given.json)
    elif given.verify:
        show(summarise(verify_archive(archive)), summary, given.json)
    elif given.report:
        target = report(given, archive)
        show({"report": str(target)}, lambda _: str(target), given.json)
    elif given.diff:
        changes = find_changes(open_archive(find_in_store(given.diff)), open_archive(archive))
        show([vars(change) for change in changes], lambda _: changes_table(changes), given.json)
    else:
        show(read_card(archive), card_table, given.json)


def parse_arguments() -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("archive", type=Path, help="a .mar file, or its name in model_store")
    parser.add_argument("--json", action="store_true", help="print all of it as JSON")
    views = parser.add_mutually_exclusive_group()
    views.add_argument("--contents", action="store_true", help="list the files")
    views.add_argument("--verify", action="store_true", help="check that it is whole, unchanged and ours")
    views.add_argument("--diff", type=Path, metavar="OLD", help="what differs from this archive")
    views.add_argument(
        "--report",
        nargs="?",
        type=Path,
        const=DEFAULT_REPORT,
        metavar="FILE",
        help="write a page to look at (exports/NAME/archive-report.html)",
    )
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="with --report: answer these")
    parser.add_argument("--labels", help="`folders` named after the classes, or a file as in a recipe")
    parser.add_argument("--annotations", type=Path, metavar="FILE", help="a COCO file with the boxes")
    parser.add_argument("--count", type=int, metavar="N", help="answer at most so many images")
    given = parser.parse_args()
    if given.report is None and any(getattr(given, name) is not None for name in TRUTH):
        parser.error(f"{', '.join(f'--{name}' for name in TRUTH)} belong to --report")
    return given


def report(given: argparse.Namespace, archive: Path) -> Path:
    """Write the report, by default beside what a build of that name leaves."""
    from mar_tools.models.recipes import VerificationRecipe  # after the options: these need PyTorch
    from mar_tools.reporting.archive_reports import report_archive

    wanted = {name: getattr(given, name) for name in TRUTH if getattr(given, name) is not None}
    images = parse_config(VerificationRecipe, wanted, "command line") if wanted else None
    target = EXPORTS / archive.stem / given.report if given.report == DEFAULT_REPORT else given.report
    return report_archive(archive, target, images)


def show(value: Any, render: Callable[[Any], Table | str], as_json: bool) -> None:
    if as_json:
        print_json(value, indent=True)
    else:
        print_tables(render(value))


def summarise(archive: Archive) -> dict[str, Any]:
    model, version = archive.identity
    return {"model": model, "version": version, "sha256": archive.sha256, "signature": describe_signature(archive)}


def describe_signature(archive: Archive) -> dict[str, Any]:
    """Describe which key it is of, and if it is of these bytes; to trust the key is for `sign_archive.py verify`."""
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
    table = new_table(name_column("file, SHA-256"), number_column("bytes"))
    for file in found["files"]:
        digest = (file["sha256"], "dim")  # whole, and in one line: it is there to be compared
        table.add_row(Text.assemble(file["name"], "\n", digest), f"{file['bytes']:,}")
    table.caption = f"archive: SHA-256 {found['sha256']}\nsignature: {found['signature']['state']}"
    return table


def changes_table(changes: list[Difference]) -> Table | str:
    if not changes:
        return "no difference"
    table = new_table("what", name_column("name: before -> after"))  # in one cell, which breaks between words
    for change in changes:
        table.add_row(change.kind, Text(f"{change.name}: {shorten(change.before)} -> {shorten(change.after)}"))
    return table


def shorten(value: Any) -> str:
    """Return 12 digits of a SHA-256, 40 characters of another value."""
    text = "none" if value is None else str(value)
    return text[: 12 if re.fullmatch("[0-9a-f]{64}", text) else 40]


if __name__ == "__main__":
    run(main)
