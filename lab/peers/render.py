"""Write docs/evidence/performance.md from the results that were measured.

python lab/peers/render.py
"""

import statistics
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lab.peers.goals import list_goals
from lab.peers.result_files import ResultFiles, agreement
from mar_tools.command_line import ROOT, new_parser, run
from mar_tools.load_testing.comparison import Spread
from vision_serving.errors import ConfigError

TEMPLATES = ROOT / "lab" / "pages"
RESULTS = ROOT / "lab" / "results" / "performance"
TEMPLATE = "performance.md.j2"
PAGE = ROOT / "docs" / "evidence" / "performance.md"


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a file is not what it would be")
    arguments = parser.parse_args()
    results = ResultFiles(arguments.results)
    text = render_page(results)
    if not arguments.check:
        PAGE.write_text(text, encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != text:
        raise ConfigError(f"{PAGE}: not what the results give; run `python lab/peers/render.py`")
    print(PAGE)


def render_page(results: ResultFiles) -> str:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["g"] = lambda value: "" if value is None else f"{value:.4g}"
    environment.filters["g2"] = lambda value: f"{value:.2g}"
    environment.filters["median"] = statistics.median
    environment.filters["spread"] = describe_spread
    return environment.get_template(TEMPLATE).render(
        results=results,
        goals=list_goals(results),
        agreement=list(agreement(results.run("resnet50"), results.run("again"))) if results.has("again") else [],
    )


def describe_spread(spread: Spread | None) -> str:
    return "" if spread is None else f"{spread.median:.2f} ({spread.least:.2f} - {spread.most:.2f})"


if __name__ == "__main__":
    run(main)
