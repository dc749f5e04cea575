"""Figures in documents are those of the results files."""

import subprocess
import sys
from pathlib import Path

import orjson
import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILDS = sorted((ROOT / "lab" / "results" / "performance" / "builds").glob("*.json"))


@pytest.mark.parametrize("path", BUILDS, ids=lambda path: path.stem)
def test_what_a_build_chose_stands_in_the_page_of_backends(path: Path) -> None:
    rows = orjson.loads(path.read_bytes())
    (chosen,) = (row for row in rows if row["verdict"] == "chosen")
    (eager,) = (row for row in rows if (row["backend"], row["precision"]) == ("eager", "fp32"))
    rates = " | ".join(f"{row['images_per_s']['8']:g}" for row in (chosen, eager))
    name = f"{chosen['backend']} {chosen['precision']}"
    line = f"| `{path.stem}` | {name} | {rates} | {chosen['speedup']:.2f} | {chosen['measured']['snr_db']:.1f} |"
    assert line in (ROOT / "docs" / "understand" / "backends.md").read_text(encoding="utf-8").splitlines()


def test_the_page_of_performance_is_what_the_results_give() -> None:
    command = [sys.executable, str(ROOT / "lab" / "peers" / "render.py"), "--check"]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr
