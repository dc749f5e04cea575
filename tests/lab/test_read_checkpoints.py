"""The forms of weights files: what a row says of each kind of outcome, and that the committed ones are all there."""

import pytest

from lab.checkpoints.forms import FORMS
from lab.checkpoints.reading import read_form, read_results
from lab.pages.rendering import PAGES

BY_NAME = {form.name: form for form in FORMS}


@pytest.mark.parametrize(
    ("name", "first", "keys"),
    [
        ("torch.compile", None, None),
        ("channels pruned away", "say `shapes: weights`", '{"shapes":"weights"}'),
        ("quantised by torch.ao", "it is quantised, and its float weights are gone", None),
        ("pickle.dump", "a Python pickle of protocol 4", None),
    ],
)
def test_a_row_says_what_came_of_a_form(name: str, first: str | None, keys: str | None) -> None:
    row = read_form(BY_NAME[name])
    assert (row.first is None) == (first is None)
    assert first is None or first in str(row.first)
    assert row.keys == keys
    assert row.difference == (0 if first is None or keys else None)


def test_the_committed_results_have_each_form() -> None:
    assert [row.form for row in read_results(PAGES["checkpoints"]).rows] == list(BY_NAME)
