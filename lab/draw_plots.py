"""Draw all plots of lab/results anew from the results that lie beside them.

    python lab/draw_plots.py
    python lab/draw_plots.py --results /tmp/try

--results names the folder of a run that wrote elsewhere.
"""

import runpy
from pathlib import Path

if __name__ == "__main__":  # outside the environment, this names the command that helps
    runpy.run_path(str(Path(__file__).parents[1] / "scripts/mar_tools/__init__.py"))

from mar_tools.command_line import ROOT, new_parser, run


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("--results", type=Path, default=ROOT / "lab" / "results", help="(default: lab/results)")
    arguments = parser.parse_args()
    print("\n".join(map(str, [*draw_load_tests(arguments.results), *draw_soaks(arguments.results)])))


def draw_load_tests(results: Path) -> list[Path]:
    """Draw `performance/<name>.json` into `performance/plots/<name>/`."""
    from mar_tools.load_testing.plots import plot_results
    from mar_tools.load_testing.trials import LoadResult
    from vision_serving.validation import read_json

    drawn = []
    for path in sorted((results / "performance").rglob("*.json")):
        document = read_json(path)
        if isinstance(document, dict) and "results" in document and "models" in document:
            measured = [LoadResult.from_document(entry) for entry in document["results"]]
            drawn += plot_results(measured, list(document["models"]), path.parent / "plots" / path.stem)
    return drawn


def draw_soaks(results: Path) -> list[Path]:
    """Draw `reliability/curves/<row>.json` into `reliability/`."""
    from lab.reliability.soak_plots import CURVES, plot_soak, read_curves
    from lab.testbed.findings import read_findings

    folder = results / "reliability"
    findings = read_findings(folder)
    curves = [read_curves(path) for path in sorted((folder / CURVES).glob("*.json"))]
    return [path for entry in curves for path in plot_soak(entry, findings[entry.row], folder)]


if __name__ == "__main__":
    run(main)
