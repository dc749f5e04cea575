"""docs/evidence/reliability.md: what the findings say, and nothing else."""

import ast
from pathlib import Path

import pytest

from lab.reliability.page import check_page, describe, order_of, render_page, write_page
from lab.reliability.rows import NAMES, choose_rows
from lab.testbed.claims import BY_TESTS_ALONE, CLAIMS, PROOFS, SECTIONS, Proof
from lab.testbed.findings import RESULTS, Finding, read_findings, write_finding
from vision_serving.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]
FINDING = Finding(
    row="B2",
    fault="both | killed",
    must_hold="no wrong answer",
    held=False,
    repetitions=2,
    measured={"rate_per_s": 100.5, "ready_s": [6.25, 7.5], "failed": [0, 3]},
    problems=("2: ready_s: 30 s, and 25 s are allowed",),
    failures=("2: 3 answered 507: <b>*bad*</b>",),
    command="python lab/run_chaos.py B2",
)


def test_a_finding_is_written_whole_and_read_back_with_date_and_machine(tmp_path: Path) -> None:
    path = write_finding(FINDING, tmp_path / "reliability")
    assert [entry.name for entry in path.parent.iterdir()] == ["B2.json"]
    found = read_findings(path.parent)["B2"]
    assert found.date
    assert found.machine["cores"] >= 1
    assert found.model_copy(update={"date": "", "machine": {}}) == FINDING


def test_the_page_shows_every_figure_failure_and_what_is_not_measured(tmp_path: Path) -> None:
    write_finding(FINDING, tmp_path / "reliability")
    (tmp_path / "reliability" / "D-10-memory.svg").touch()
    text = render_page(tmp_path / "reliability")
    (row,) = (line for line in text.splitlines() if line.startswith("| B2 |"))
    assert r"both \| killed" in row
    assert "rate per s 100.5; ready s 7.5 (6.25 - 7.5); failed 0, 3" in row
    assert "**NOT held**" in row
    assert r"- 2: 3 answered 507: \<b\>\*bad\*\</b\>" in text
    assert "![D-10-memory](reliability/D-10-memory.svg)" in text
    assert f"Not measured yet: B1 ({CLAIMS['B1']}); B3" in text
    assert f"D-10 ({CLAIMS['D-10']}); D-60" in text


def test_a_page_of_other_findings_is_not_current(tmp_path: Path) -> None:
    results = tmp_path / "reliability"
    write_finding(FINDING, results)
    write_page(results)
    check_page(results)
    write_finding(FINDING.model_copy(update={"held": True}), results)
    with pytest.raises(ConfigError, match=r"run_chaos\.py --render"):
        check_page(results)


def test_the_shipped_page_is_what_the_shipped_findings_give() -> None:
    check_page(RESULTS)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (3, "3"),
        (100.25, "100.25"),
        ([0, 0], "0 each time"),
        ([4], "4"),
        ([4, 0, 4], "4, 0, 4"),
        ([1.5, 0.25, 2.5], "1.5 (0.25 - 2.5)"),
        ([0] * 50 + [1], "0 (0 - 1)"),
    ],
)
def test_counts_are_shown_one_by_one_and_times_by_their_range(value: object, shown: str) -> None:
    assert describe(value) == shown


def test_rows_are_in_the_order_of_their_numbers() -> None:
    assert sorted(["B10", "D-10", "B2", "A1", "B4-loop", "B4-exit"], key=order_of) == [
        "A1", "B2", "B4-exit", "B4-loop", "B10", "D-10",
    ]  # fmt: skip


def test_every_claim_is_measured_by_a_command_or_shown_by_a_test() -> None:
    by_chaos = {name for name in CLAIMS if name[0] != "D"} - set(BY_TESTS_ALONE) - {"C7"}
    assert set(NAMES) == by_chaos
    assert set(BY_TESTS_ALONE) <= {proof.row for proof in PROOFS}
    assert {name[0] for name in CLAIMS} == set(SECTIONS)


def test_a_row_is_chosen_by_its_name_or_by_what_it_is_part_of() -> None:
    assert choose_rows(["b4", "B1"]) == ["B1", "B4-deadlock", "B4-loop", "B4-exit", "B4-segfault"]
    assert choose_rows(["c"]) == ["C1", "C2"]
    assert choose_rows([]) == list(NAMES)
    with pytest.raises(ConfigError, match="no row 'B99'; there are A1, "):
        choose_rows(["B99"])


@pytest.mark.parametrize("proof", PROOFS, ids=lambda proof: f"{proof.row} {proof.test}")
def test_a_test_that_proves_a_row_is_there(proof: Proof) -> None:
    tree = ast.parse((ROOT / proof.file).read_text(encoding="utf-8"))
    assert proof.test in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert proof.row in CLAIMS
