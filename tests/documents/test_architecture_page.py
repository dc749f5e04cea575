"""The diagrams of docs/understand/architecture.md name folders and files that there are."""

import re
from pathlib import Path

import pytest
from markdown_pages import ROOT, read_page

DIAGRAMS = re.findall(r"```mermaid\n(.*?)```", read_page("docs/understand/architecture.md"), re.DOTALL)
ROOMS = (ROOT / "handlers" / "vision_serving", ROOT / "scripts" / "mar_tools")
ROOM = re.compile(r'\["([a-z_/]+(?:/|\.py)):')


@pytest.mark.parametrize(("diagram", "room"), list(zip(DIAGRAMS, ROOMS, strict=True)), ids=["request", "build"])
def test_each_step_is_a_folder_or_file(diagram: str, room: Path) -> None:
    steps = ROOM.findall(diagram)
    assert len(steps) >= 6
    assert [step for step in steps if not (room / step).exists()] == []
