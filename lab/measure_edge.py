"""Export both examples in every format and precision, and write how near each runtime comes to eager fp32.

    python lab/measure_edge.py                              # all of them, half an hour
    python lab/measure_edge.py --formats ort executorch     # some; the rows of the others stay

Writes lab/results/edge.json and docs/evidence/edge.md. Needs requirements/lab.txt, npm and Chromium. `litert` installs
1 GB into an environment of its own.
"""

import json
import runpy
import subprocess
import sys
from argparse import Namespace
from datetime import date
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if __name__ == "__main__":  # outside the environment, this names the command that helps
    runpy.run_path(str(Path(__file__).parents[1] / "scripts/mar_tools/__init__.py"))

from mar_tools.command_line import ROOT, new_parser, run
from mar_tools.machine import cpu_name
from mar_tools.terminal import print_line
from vision_serving.errors import last_line

if TYPE_CHECKING:
    from lab.pages.edge import EdgeRow

OUTPUT = ROOT / "lab" / "results" / "edge.json"
# As lab.pages.edge has them, which the help does without.
EXAMPLES, PRECISIONS = ("classifier", "detector"), ("fp32", "int8")
FORMATS = ("ort", "onnx-web", "executorch", "litert")
SHOWN = ("top1_agreement", "matched_boxes", "iou", "mean_iou", "answered_iou", "snr_db", "overall_snr_db")


def main() -> None:
    given = parse_arguments()
    for example in given.examples or EXAMPLES:
        for form in given.formats:
            for precision in given.precisions or PRECISIONS:
                row = measure(example, form, precision)
                keep(row, given.output)
                print_line(f"{row.key}: {row.reason or row.measured}")


def parse_arguments() -> Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("--examples", nargs="+", choices=EXAMPLES, help="default: both")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS, help="default: all")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, help="default: both")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="the json; the page lies beside it")
    return parser.parse_args()


def measure(example: str, form: str, precision: str) -> "EdgeRow":
    """Export as a user does, and return what the verification says, or the reason of a refusal."""
    from lab.pages.edge import EXAMPLES, EdgeRow

    with TemporaryDirectory(prefix="edge-") as temporary:
        folder = Path(temporary) / "folder"
        options = ["--format", form, "--precision", precision, "--output", str(folder), "--yes", "--json"]
        recipe = str(EXAMPLES[example] / "recipe.yaml")
        command = [sys.executable, str(ROOT / "scripts" / "export_edge.py"), recipe, *options]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            reason = last_line(RuntimeError(done.stderr)).replace(temporary, "")
            return EdgeRow(example=example, form=form, precision=precision, reason=reason)
        report = json.loads(done.stdout)
        quantization = json.loads((folder / "model.json").read_text("utf-8")).get("quantization", {})
    return EdgeRow(
        example=example,
        form=form,
        precision=precision,
        runtime=report["runtime"],
        scheme=quantization.get("scheme", ""),
        float_layers=len(quantization.get("float_layers", ())),
        megabytes=report["artifact_mb"],
        images=report["images"],
        measured={name: report["measured"][name] for name in SHOWN if name in report["measured"]},
    )


def keep(row: "EdgeRow", path: Path) -> None:
    """Write a row in the place of an earlier one, and the page. What was measured stays, however the command ends."""
    from lab.pages.edge import EXAMPLES, FORMATS, PRECISIONS, EdgeResults, read_results
    from lab.pages.rendering import write_page
    from lab.testbed.findings import write_whole

    rows = {known.key: known for known in read_results(path).rows} if path.exists() else {}
    rows[row.key] = row
    order = product(EXAMPLES, FORMATS, PRECISIONS)
    results = EdgeResults(
        date=date.today().isoformat(), machine=cpu_name(), rows=tuple(rows[key] for key in order if key in rows)
    )
    write_whole(path, json.dumps(results.model_dump(mode="json"), indent=2) + "\n")
    write_page("edge", path)


if __name__ == "__main__":
    run(main)
