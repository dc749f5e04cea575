"""docs/evidence: every page is what the results give, and every test that a page names is there."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lab import render_pages
from lab.pages import rendering
from lab.pages.rendering import PAGES, PAGES_FOLDER, page_path, render_page
from lab.testbed.findings import BY_TESTS_ALONE, CLAIMS
from mar_tools.command_line import ROOT
from vision_serving.errors import ConfigError

COMMAND = [sys.executable, str(ROOT / "lab" / "render_pages.py")]
NAMED_TEST = re.compile(r"^\| (\S+) \| .*<br>\[`(test_\w+)`\]\(([^()]+)\) \|$", re.MULTILINE)


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_what_the_results_give(name: str) -> None:
    assert read(page_path(name)) == render_page(name), "run `python lab/render_pages.py`"


def test_there_is_no_page_that_nothing_renders() -> None:
    assert {path.stem for path in PAGES_FOLDER.glob("*.md")} == set(PAGES)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_begins_with_question_method_result_and_shortfall(name: str) -> None:
    words = re.findall(r"^- \*\*(\w+):\*\*", read(page_path(name)), re.MULTILINE)
    assert words == ["Question", "Method", "Result", "Shortfall"]


def test_the_command_finds_what_is_stale_and_writes_it_only_without_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendering, "PAGES_FOLDER", tmp_path)
    page = tmp_path / "reliability.md"

    def command(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["render_pages.py", "reliability", *arguments])
        render_pages.main()

    with pytest.raises(ConfigError, match=r"not what the results give: .*reliability\.md; run `python lab/render_page"):
        command("--check")
    assert not page.exists()
    command()
    command("--check")
    page.write_text(read(page) + "\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"reliability\.md"):
        command("--check")


def test_an_unknown_page_is_refused() -> None:
    finished = subprocess.run([*COMMAND, "speed"], capture_output=True, text=True)
    assert finished.returncode == 2
    assert (
        "no page 'speed'; expected some of performance, compatibility, checkpoints, fidelity, published, reliability, "
        "billion" in finished.stderr
    )


@pytest.mark.parametrize(("row", "test", "file"), NAMED_TEST.findall(read(page_path("reliability"))))
def test_a_test_that_the_page_of_reliability_names_is_there(row: str, test: str, file: str) -> None:
    tree = ast.parse(read(PAGES_FOLDER / file))
    assert test in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert row in CLAIMS


def test_each_row_that_is_shown_by_tests_alone_names_one() -> None:
    assert set(BY_TESTS_ALONE) <= {row for row, _, _ in NAMED_TEST.findall(read(page_path("reliability")))}
