"""docs/evidence/reliability.md: what the findings say, and nothing else."""

from pathlib import Path

import pytest

from lab.pages.reliability import order_of
from lab.pages.rendering import render_page, write_page
from lab.reliability.rows import NAMES, choose_rows
from lab.testbed.findings import BY_TESTS_ALONE, CLAIMS, Finding, read_findings, write_finding
from vision_serving.errors import ConfigError

FINDING = Finding(
    row="B2",
    fault="both | killed",
    must_hold="no wrong answer",
    held=False,
    repetitions=2,
    measured={"rate_per_s": 100.5, "ready_s": [6.25, 7.5], "failed": [0, 3], "wrong": [0, 0], "unanswered": 0},
    problems=("2: ready_s: 30 s, and 25 s are <b>*allowed*</b>",),
    failures=("2: 3 answered 507; due +0.01 s, waited 0.08 s",),
    command="python lab/run_chaos.py B2",
)


def test_a_finding_is_written_whole_and_read_back_with_date_and_machine(tmp_path: Path) -> None:
    path = write_finding(FINDING, tmp_path / "reliability")
    assert [entry.name for entry in path.parent.iterdir()] == ["B2.json"]
    found = read_findings(path.parent)["B2"]
    assert found.date
    assert found.machine["cores"] >= 1
    assert found.model_copy(update={"date": "", "machine": {}}) == FINDING


def test_the_page_shows_every_figure_what_broke_and_what_is_not_measured(tmp_path: Path) -> None:
    write_finding(FINDING, tmp_path / "reliability")
    (tmp_path / "reliability" / "D-10-memory.svg").touch()
    text = render_page("reliability", tmp_path / "reliability")
    (row,) = (line for line in text.splitlines() if line.startswith("| [B2](reliability/B2.json) |"))
    assert r"both \| killed" in row
    assert "rate: 100.5 /s<br>ready: 7.5 (6.25 - 7.5) s<br>failed: 0 - 3<br>0: wrong, unanswered |" in row
    assert "**NOT held**, 2 times" in row
    broken = "    - 2: ready\\_s: 30 s, and 25 s are \\<b\\>\\*allowed\\*\\</b\\>\n"
    assert f"  - B2 (both workers killed) did not hold:\n{broken}" in text
    assert "![D-10-memory](reliability/D-10-memory.svg)" in text
    for row in ("B1", "B3", "D-10", "E1"):
        assert f"  - {row} ({CLAIMS[row]}) is not measured yet.\n" in text


def test_a_page_of_other_findings_is_another(tmp_path: Path) -> None:
    results = tmp_path / "reliability"
    write_finding(FINDING, results)
    page = write_page("reliability", results)
    assert page == tmp_path / "reliability.md"
    assert page.read_text(encoding="utf-8") == render_page("reliability", results)
    write_finding(FINDING.model_copy(update={"held": True}), results)
    assert page.read_text(encoding="utf-8") != render_page("reliability", results)


def test_rows_are_in_the_order_of_their_numbers() -> None:
    assert sorted(["B10", "D-10", "B2", "A1", "B4-loop", "B4-exit"], key=order_of) == [
        "A1", "B2", "B4-exit", "B4-loop", "B10", "D-10",
    ]  # fmt: skip


def test_every_claim_is_measured_by_a_command_or_shown_by_a_test() -> None:
    by_chaos = {name for name in CLAIMS if name[0] != "D"} - set(BY_TESTS_ALONE) - {"C7"}
    assert set(NAMES) == by_chaos
    assert {name[0] for name in CLAIMS} == set("ABCDE")


def test_a_row_is_chosen_by_its_name_or_by_what_it_is_part_of() -> None:
    assert choose_rows(["b4", "B1"]) == ["B1", "B4-deadlock", "B4-loop", "B4-exit", "B4-segfault"]
    assert choose_rows(["c"]) == ["C1", "C2"]
    assert choose_rows([]) == list(NAMES)
    with pytest.raises(ConfigError, match="no row 'B99'; there are A1, "):
        choose_rows(["B99"])
