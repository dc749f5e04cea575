"""Say what this version of the project changes for the settings, keys, archives and recipes of a server.

    python scripts/upgrade_project.py --check
    python scripts/upgrade_project.py --check --from /srv/vision
    python scripts/upgrade_project.py --check --from /srv/vision --recipes /srv/recipes --json

Run it from the new checkout. --from names the checkout that runs the server now, and may be left out where the new
version took its place. It changes nothing, and the server may run meanwhile.

`do` is what this version refuses: what to type stands below the table, and the exit status is 1. `look` works, and is
worth a thought. The exit status is 0 where nothing must be done.
"""

import sys
from dataclasses import asdict
from pathlib import Path

from mar_tools.command_line import ROOT, existing_folder, new_parser, print_json, run
from mar_tools.serving.state_option import add_state_option
from mar_tools.terminal import name_column, new_table, print_tables
from mar_tools.upkeep.changes import VERSION
from mar_tools.upkeep.upgrade_check import Finding, Running, check_upgrade
from vision_serving.worker.server_settings import state_folder


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("--check", action="store_true", required=True, help="say it, and change nothing")
    parser.add_argument(
        "--from", type=existing_folder, default=ROOT, metavar="FOLDER", dest="checkout", help="that runs now"
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="default: config.properties of that folder")
    parser.add_argument(
        "--front", type=Path, metavar="FILE", help="a front.yaml; default: of that folder's front, if any"
    )
    parser.add_argument(
        "--recipes",
        type=existing_folder,
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="with recipes of yours, which are checked too",
    )
    add_state_option(parser)
    parser.add_argument("--json", action="store_true", help="print what was found")
    given = parser.parse_args()
    config = given.config or given.checkout / "config.properties"
    front = given.front or find_front(given.checkout, config)
    findings = check_upgrade(Running(given.checkout, config, front, tuple(given.recipes)))
    if given.json:
        print_json({"version": VERSION, "findings": [asdict(finding) for finding in findings]}, indent=True)
    else:
        show(findings)
    if any(finding.verdict == "do" for finding in findings):
        sys.exit(1)


def find_front(checkout: Path, config: Path) -> Path | None:
    """Return the front.yaml of a checkout where a front has run; every checkout has the file."""
    has_run = any((folder / "front").is_dir() for folder in (checkout, state_folder(config)))
    file = checkout / "deploy" / "nginx" / "front.yaml"
    return file if has_run and file.is_file() else None


def show(findings: list[Finding]) -> None:
    table = new_table("", name_column("what"), "", title=f"to version {VERSION}")
    place = ""
    for finding in findings:
        if finding.place != place:
            place = finding.place
            table.add_section()
            table.add_row("", place, "")
        table.add_row(finding.verdict, finding.name, finding.text)
    print_tables(table)
    for verdict, heading in (("do", "To do:"), ("look", "Worth a thought:")):
        lines = [finding.todo for finding in findings if finding.verdict == verdict and finding.todo]
        if lines:
            print("\n".join(["", heading, *(f"  {line}" for line in dict.fromkeys(lines))]))


if __name__ == "__main__":
    run(main)
