"""Write docs/evidence/performance.md, and the table of README.md, from the results that were measured.

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
README = ROOT / "README.md"
MARKERS = ("<!-- lab/peers/render.py: begin -->", "<!-- lab/peers/render.py: end -->")
MODES = {  # what stands behind a server's name -> what it serves
    "": "int8, as built here",
    "artifact": "the same archive and code",
    "idiomatic": "eager fp32, its own way",
    "default": "fp32, as it comes",
    "tuned": "fp32, tuned",
}


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a file is not what it would be")
    arguments = parser.parse_args()
    results = ResultFiles(arguments.results)
    readme = replace_between(README.read_text(encoding="utf-8"), MARKERS, readme_table(results))
    for path, text in ((PAGE, render_page(results)), (README, readme)):
        if not arguments.check:
            path.write_text(text, encoding="utf-8")
        elif path.read_text(encoding="utf-8") != text:
            raise ConfigError(f"{path}: not what the results give; run `python lab/peers/render.py`")
        print(path)


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


def readme_table(results: ResultFiles) -> str:
    """Ours, and every other server with the same image size, in requests/s."""
    run = results.run("resnet50")
    rows = [
        "| server | serves | requests/s | ours / it | p50 ms | p99 ms |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for result in sorted(run.results, key=lambda entry: -entry.median.requests_per_s):
        median = result.median
        if result.load.kind != "closed" or not median.latency_ms:
            continue
        name, _, mode = result.target.partition("-")
        server = {run.baseline: "**ours**", "stock": "TorchServe, stock handler"}.get(name, name)
        ratio = f"{run.rate_ratio(run.baseline, result.target).median:.2f}" if result.target in run.peers else ""
        latencies = " | ".join(f"{median.latency_ms[key]:.0f}" for key in ("p50", "p99"))
        rows.append(f"| {server} | {MODES[mode]} | {median.requests_per_s:.1f} | {ratio} | {latencies} |")
    return "\n".join(rows)


def replace_between(text: str, markers: tuple[str, str], content: str) -> str:
    """Raises ConfigError where the markers are missing."""
    before, found, rest = text.partition(markers[0])
    _, ends, after = rest.partition(markers[1])
    if not found or not ends:
        raise ConfigError(f"README.md: expected the lines {markers[0]!r} and {markers[1]!r} around the table")
    return f"{before}{markers[0]}\n{content}\n{markers[1]}{after}"


if __name__ == "__main__":
    run(main)
