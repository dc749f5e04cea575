"""Render the templates of this folder with the values of lab/results."""

import os
from importlib import import_module
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lab.pages.formatting import FILTERS
from lab.testbed.findings import write_whole
from mar_tools.command_line import ROOT

TEMPLATES = Path(__file__).resolve().parent
PAGES_FOLDER = ROOT / "docs" / "evidence"

# Page -> its results. `<page>.md.j2` is the template, `read_values` of lab.pages.<page> gives its variables.
PAGES = {
    "performance": ROOT / "lab/results/performance",
    "compatibility": ROOT / "lab/results/compatibility.json",
    "checkpoints": ROOT / "lab/results/checkpoints.json",
    "fidelity": ROOT / "lab/results/fidelity.json",
    "published": ROOT / "lab/results/published.json",
    "reliability": ROOT / "lab/results/reliability",
    "billion": ROOT / "lab/results/performance",
    "compression": ROOT / "lab/results/compression.json",
    "int8_training": ROOT / "lab/results/int8_training.json",
    "edge": ROOT / "lab/results/edge.json",
    "techniques": ROOT / "lab/results/performance/inference_modes.json",
}


def page_path(name: str, results: Path | None = None) -> Path:
    """Return docs/evidence/<name>.md for the committed results, and a file beside them for all others."""
    if results is None or results.resolve() == PAGES[name]:
        return PAGES_FOLDER / f"{name}.md"
    return results.with_suffix(".md")


def write_page(name: str, results: Path | None = None) -> Path:
    path = page_path(name, results)
    write_whole(path, render_page(name, results))
    return path


def render_page(name: str, results: Path | None = None) -> str:
    """Render the committed results, or those of another file or folder."""
    # Imported here: the modules of some pages import PyTorch, which takes seconds.
    values: dict[str, Any] = import_module(f"lab.pages.{name}").read_values(results or PAGES[name])
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(FILTERS)
    results_path = os.path.relpath(results or PAGES[name], page_path(name, results).parent)
    return environment.get_template(f"{name}.md.j2").render(values, results_path=results_path)
