"""What people see, when it goes through a pipe."""

import pytest
from rich.console import Group

from mar_tools.terminal import Text, new_table, print_tables

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
