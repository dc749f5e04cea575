"""Show what takes room on the disk, and remove exports that nobody used for long.

    python scripts/clean_up.py
    python scripts/clean_up.py --days 30
    python scripts/clean_up.py --gb 5 --dry-run

Exports are what builds keep between their steps. The archives in the model store need none of them, and a build makes
them again. --days removes those of models that were not built for so long. --gb removes the oldest ones until the rest
takes so much. Nothing else is ever removed: logs roll over by themselves, and samples have a bound of their own.
"""

from pathlib import Path

from mar_tools.command_line import EXPORTS, ROOT, existing_folder, new_parser, not_negative, print_json, run
from mar_tools.serving.server import Server
from mar_tools.serving.state_option import add_state_option
from mar_tools.terminal import name_column, new_table, number_column, print_tables
from mar_tools.upkeep.disk import GB, Export, choose_old, measure, read_exports, remove
from vision_serving.errors import VisionServingError
from vision_serving.worker.server_settings import state_folder


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("--days", type=not_negative, metavar="N", help="exports older than this go")
    parser.add_argument("--gb", type=not_negative, metavar="N", help="the exports that stay take no more than this")
    parser.add_argument("--dry-run", action="store_true", help="tell what would go, and remove nothing")
    parser.add_argument(
        "--exports", type=existing_folder, metavar="FOLDER", default=EXPORTS, help="that builds work in"
    )
    parser.add_argument("--config", type=Path, metavar="FILE", default=ROOT / "config.properties")
    add_state_option(parser)
    parser.add_argument("--json", action="store_true", help="print what was found and removed")
    given = parser.parse_args()
    places = measure_places(given.config)  # wrong settings remove nothing
    exports = read_exports(given.exports)
    old = choose_old(exports, given.days, given.gb)
    fate = {export.folder: "would go" for export in old}
    kept = []
    if not given.dry_run:
        for export, problem in remove(old):
            fate[export.folder] = f"stays: {problem}" if problem else "removed"
            kept += [f"{export.folder}: {problem}"] if problem else []
    if given.json:
        rows = [describe(export) | {"fate": fate.get(export.folder, "")} for export in exports]
        print_json({"exports": rows, "place_bytes": places})
    else:
        table = new_table(name_column("what"), number_column("GB"), number_column("days"), "", gap=2)
        for export in exports:
            name = f"exports of {export.folder.name}"
            table.add_row(name, f"{export.size_bytes / GB:.2f}", f"{export.days:.0f}", fate.get(export.folder, ""))
        for name, size in places.items():
            table.add_row(name, f"{size / GB:.2f}", "", "")
        print_tables(table)
    if kept:
        raise VisionServingError("; ".join(kept))


def describe(export: Export) -> dict[str, object]:
    return {"folder": str(export.folder), "bytes": export.size_bytes, "days": round(export.days, 1)}


def measure_places(config: Path) -> dict[str, int]:
    """Return the bytes of the places where a server keeps something; one that there is not yet takes nothing."""
    state = state_folder(config)
    folders = {"model store": Server(config).model_store(), "logs": state / "logs", "samples": state / "samples"}
    return {name: measure(folder)[0] if folder.is_dir() else 0 for name, folder in folders.items()}


if __name__ == "__main__":
    run(main)
