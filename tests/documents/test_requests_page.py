"""docs/use/requests.md names the options of every task."""

import re

import pytest
from markdown_pages import read_page

from vision_serving.options import WIDEST_OPTIONS, ExplanationOptions
from vision_serving.validation import StrictModel


@pytest.mark.parametrize("options", [*WIDEST_OPTIONS.values(), ExplanationOptions], ids=lambda model: model.__name__)
def test_the_table_of_options_names_each(options: type[StrictModel]) -> None:
    [table] = re.findall(r"^\| task \| options \|.*?\n\n", read_page("docs/use/requests.md"), re.MULTILINE | re.DOTALL)
    assert [name for name in options.model_fields if f"`{name}`" not in table] == []
