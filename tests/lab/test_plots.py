"""The committed plots are those that the committed results give and that a page shows."""

import shutil
import subprocess
from pathlib import Path

from lab.draw_plots import draw_load_tests, draw_soaks
from lab.reliability.soak_plots import read_percentiles
from mar_tools.command_line import ROOT

RESULTS = ROOT / "lab" / "results"


def test_plots_are_what_the_results_give(tmp_path: Path) -> None:
    copied = tmp_path / "results"
    shutil.copytree(RESULTS, copied, ignore=shutil.ignore_patterns("*.svg", "*.png"))
    drawn = [*draw_load_tests(copied), *draw_soaks(copied)]
    committed = {path.relative_to(RESULTS) for path in RESULTS.rglob("*.svg")}
    assert committed <= {path.relative_to(copied) for path in drawn}
    different = [name for name in committed if (copied / name).read_bytes() != (RESULTS / name).read_bytes()]
    assert different == [], "run `python lab/draw_plots.py`"


def test_a_plot_is_committed_where_a_page_shows_it() -> None:
    """All others are drawn by the command, and ignored by git."""
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "evidence").glob("*.md"))
    listed = subprocess.run(["git", "ls-files", "lab/results"], cwd=ROOT, capture_output=True, text=True, check=True)
    plots = [path for path in listed.stdout.split() if path.endswith((".svg", ".png"))]
    assert plots
    assert [path for path in plots if path not in pages] == []


def test_the_last_request_of_a_soak_is_in_its_last_part() -> None:
    latencies = [(due / 10, 0.02 if due < 1200 else 9.0) for due in range(1201)]
    curves = read_percentiles(latencies)
    assert len(curves.minutes) == 60
    assert set(curves.p50_ms) == {20.0}
