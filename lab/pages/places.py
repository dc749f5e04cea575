"""Where the page lies that is drawn from a results file or folder."""

from pathlib import Path

from mar_tools.command_line import ROOT

RESULTS = ROOT / "lab" / "results"
EVIDENCE = ROOT / "docs" / "evidence"


def page_of(results: Path) -> Path:
    """Find the page: in docs/evidence for the committed results, beside them for all others."""
    name = results.with_suffix(".md").name
    return EVIDENCE / name if results.resolve().parent == RESULTS else results.with_suffix(".md")
