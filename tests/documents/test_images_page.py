"""docs/use/images.md and openapi.yaml name the formats that the code has."""

import re
from typing import get_args

import pytest
from markdown_pages import read_page

from vision_serving.config import ImageFormat, ImageLimits

DEFAULT = ImageLimits().formats
PAGE = read_page("docs/use/images.md")


def test_the_page_lists_the_formats_of_the_default_and_all_that_there_are() -> None:
    lists = [tuple(found.split(", ")) for found in re.findall(r"formats: \[([A-Z0-9, ]+)\]", PAGE)]
    assert lists == [DEFAULT, get_args(ImageFormat)]


@pytest.mark.parametrize("name", DEFAULT)
def test_a_format_has_its_memory_and_stands_in_the_description_of_the_protocol(name: str) -> None:
    [memory] = re.findall(r"^\| picture \| bytes a pixel \|.*?\n\n", PAGE, re.MULTILINE | re.DOTALL)
    [described] = re.findall(r"One encoded image \((.*?);", read_page("docs/use/openapi.yaml"), re.DOTALL)
    assert name in memory.upper()
    assert name in described.upper().split(", ")
