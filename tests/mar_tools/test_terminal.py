"""What people see, when it goes through a pipe."""

import pytest
from rich.console import Group

from mar_tools.terminal import Text, new_table, print_tables, show_steps, show_work

LINE = f"{'word ' * 40}[bold] of [/nothing] :cat:"


@pytest.mark.parametrize("text", [LINE, Text(LINE), Group(new_table("a"), Text(LINE))], ids=["str", "Text", "Group"])
def test_text_that_is_no_table_is_printed_as_it_is(
    text: str | Text | Group, capsys: pytest.CaptureFixture[str]
) -> None:
    print_tables(new_table("a"), text)
    assert LINE in capsys.readouterr().out.splitlines()


def test_a_table_fits_80_columns_whatever_stands_beside_it(capsys: pytest.CaptureFixture[str]) -> None:
    table = new_table("heading")
    table.add_row("word " * 40)
    print_tables(table, "text")
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_a_notebook_that_asks_for_colours_gets_lines_and_no_bars(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with show_steps("model") as announce:
        announce("export", 0, 2)
    with show_work("starting") as announce_work:
        announce_work("waiting")
    assert capsys.readouterr().err == "model: step 1 of 2, export\nstarting\nwaiting\n"
