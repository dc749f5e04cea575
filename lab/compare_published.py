"""Compare models that others publish in wheels with the programs that they publish with them.

    python lab/compare_published.py
    python lab/compare_published.py --models nudenet --folder /tmp/published

Each wheel comes from the package index. `new_recipe.py` writes the recipe of its model. The reference that a build
makes of it answers the same pictures as the author's own program. Where they differ, so does the reference of
the recipe that the first printed hint makes.
"""

import argparse
import runpy
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # outside the environment, this names the command that helps
    runpy.run_path(str(Path(__file__).parents[1] / "scripts/mar_tools/__init__.py"))

import orjson

from mar_tools.command_line import ROOT, new_parser, run

RESULTS = ROOT / "lab/results/published.json"


def main() -> None:
    given = parse_arguments()
    from lab.published.comparison import compare_model
    from lab.published.models import MODELS

    given.folder.mkdir(parents=True, exist_ok=True)
    known = orjson.loads(given.output.read_bytes())["rows"] if given.output.exists() else []
    rows = {row["model"]: row for row in known}
    for model in MODELS:
        if not given.models or model.name in given.models:
            rows[model.name] = compare_model(model, given.folder)
            write_rows(rows, given.output)  # what was found stays, where the next model fails
            print(orjson.dumps(rows[model.name]).decode(), flush=True)


def write_rows(rows: dict[str, dict[str, Any]], output: Path) -> None:
    from lab.published.models import MODELS

    document = {"date": date.today().isoformat(), "rows": [rows[m.name] for m in MODELS if m.name in rows]}
    output.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")


def parse_arguments() -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("--models", nargs="+", metavar="NAME", help="default: all")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "published", help="keeps wheels")
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
