"""Figures in documents are those of the results files."""

import shutil
from pathlib import Path
from typing import Literal

import orjson
import pytest

from lab.pages.performance import RatioGoal, list_goals, list_servers_in_short
from lab.pages.performance_results import PerformanceResults
from lab.pages.rendering import PAGES, render_page
from mar_tools.command_line import ROOT
from mar_tools.load_testing.comparison import Spread

BUILDS = sorted((PAGES["performance"] / "builds").glob("*.json"))


@pytest.mark.parametrize("path", BUILDS, ids=lambda path: path.stem)
def test_what_a_build_chose_stands_in_the_page_of_backends(path: Path) -> None:
    rows = orjson.loads(path.read_bytes())
    (chosen,) = (row for row in rows if row["verdict"] == "chosen")
    (eager,) = (row for row in rows if (row["backend"], row["precision"]) == ("eager", "fp32"))
    rates = " | ".join(f"{row['images_per_s']['8']:g}" for row in (chosen, eager))
    name = f"{chosen['backend']} {chosen['precision']}"
    line = f"| `{path.stem}` | {name} | {rates} | {chosen['speedup']:.2f} | {chosen['measured']['snr_db']:.1f} |"
    assert line in (ROOT / "docs" / "understand" / "backends.md").read_text(encoding="utf-8").splitlines()


def test_the_figures_of_the_readme_are_those_that_were_measured() -> None:
    run = PerformanceResults(PAGES["performance"]).step("resnet50")
    for target in (run.baseline, "stock-tuned"):
        assert f"{run.find(target).median.requests_per_s:.1f}" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_a_step_that_has_not_run_is_a_goal_that_is_not_measured(tmp_path: Path) -> None:
    for name in ("resnet50.json", "client.json"):
        shutil.copy(PAGES["performance"] / name, tmp_path / name)
    verdicts = {goal.name: goal.verdict for goal in list_goals(PerformanceResults(tmp_path))}
    assert verdicts["ResNet-50 int8 / stock, out of the box (T0)"] == "met"
    assert verdicts["ResNet-50 fp32 / T1"] == "not measured"
    page = render_page("performance", tmp_path)
    assert "| ResNet-50 fp32 / T1 | at least 2.0 |  | **not measured** |" in page
    assert f"and {list(verdicts.values()).count('not measured')} are not measured" in page


@pytest.mark.parametrize(
    ("side", "median", "verdict"),
    [("at least", 2.0, "met"), ("at least", 1.99, "not met"), ("at most", 2.0, "met"), ("at most", 2.01, "not met")],
)
def test_the_median_decides_whether_a_goal_is_met(
    side: Literal["at least", "at most"], median: float, verdict: str
) -> None:
    assert RatioGoal("a ratio", side, 2.0, Spread(median, 0.1, 9.9)).verdict == verdict


def test_the_short_table_has_the_fastest_peers_the_slowest_and_the_stock_servers() -> None:
    step = PerformanceResults(PAGES["performance"]).step("resnet50")
    chosen = [result.target for result in list_servers_in_short(step)]
    rates = [step.find(name).median.requests_per_s for name in chosen]
    assert {"resnet50", "stock-default", "stock-tuned"} < set(chosen)
    assert len(chosen) == 6
    assert rates == sorted(rates, reverse=True)
    fastest = max(step.peers, key=lambda name: step.find(name).median.requests_per_s)
    assert fastest in chosen
