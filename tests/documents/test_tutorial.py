"""The tutorial's notebook runs from its first cell to its last, and shows what is stored in it."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest

from examples.make_tutorial import METADATA, NOTEBOOK, clean, run_notebook
from mar_tools.serving.server import Server

OF_A_MACHINE = re.compile(r"/(?:home|root|tmp|work|usr|Users)/\S*|\x1b")
SCRIPTS = re.compile(r"<script|\son\w+=|javascript:", re.IGNORECASE)


@pytest.fixture(scope="module")
def stored() -> Any:
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))


def list_outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook["cells"] for output in cell.get("outputs", [])]


def list_kinds(notebook: Any) -> list[Any]:
    """Return for each cell what kinds of outputs it has, as text, pictures and tables."""
    return [
        Counter((output["output_type"], *sorted(output.get("data", ()))) for output in cell.get("outputs", ()))
        for cell in notebook["cells"]
    ]


def test_its_outputs_are_stored_and_none_is_an_error(stored: Any) -> None:
    kinds = {output["output_type"] for output in list_outputs(stored)}
    assert kinds == {"stream", "execute_result"}
    code = [cell for cell in stored["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))


def test_it_holds_nothing_of_the_machine_that_ran_it(stored: Any) -> None:
    shown = json.dumps([{**output, "data": {}} if "data" in output else output for output in list_outputs(stored)])
    texts = json.dumps([output["data"].get("text/plain") for output in list_outputs(stored) if "data" in output])
    assert OF_A_MACHINE.findall(shown + texts) == []
    assert stored["metadata"] == METADATA
    assert {key for cell in stored["cells"] for key in cell["metadata"]} == set()


def test_it_is_small_and_nothing_in_it_runs(stored: Any) -> None:
    assert NOTEBOOK.stat().st_size < 300_000
    pages = ["".join(output["data"].get("text/html", "")) for output in list_outputs(stored) if "data" in output]
    assert [page for page in pages if SCRIPTS.search(page)] == []


def test_each_cell_is_short(stored: Any) -> None:
    assert max(len(cell["source"]) for cell in stored["cells"]) <= 40


@pytest.mark.lab
def test_it_runs_and_shows_what_is_stored(stored: Any, tmp_path: Path) -> None:
    ran = clean(run_notebook(tmp_path))
    assert list_kinds(ran) == list_kinds(stored)
    assert [cell["source"] for cell in ran["cells"]] == ["".join(cell["source"]) for cell in stored["cells"]]
    printed = "".join(output["text"] for output in list_outputs(ran) if output["output_type"] == "stream")
    assert "chosen" in printed
    assert "422 InvalidOptionError" in printed
    assert printed.endswith("stopped\n")
    assert not Server(tmp_path / "tutorial" / "config.properties").stop(), "it was stopped by the last cell"
    commands = [child.cmdline() for child in psutil.Process().children(recursive=True)]
    assert [command for command in commands if "ipykernel_launcher" in command] == []
