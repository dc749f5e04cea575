"""Every link and picture in a Markdown page leads to a file, and every anchor to a heading."""

import re
from functools import cache
from os.path import normpath
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from markdown_pages import list_anchors, list_files, list_links, list_pages, read_page

TOP = "client|deploy|docs|examples|handlers|lab|recipes|requirements|scripts|tests"
NAMED = re.compile(rf"(?<![\w/.-])((?:{TOP})/[a-z0-9_/.-]+\.(?:py|sh|md|txt|yaml|json|lua|js|conf)(?:\.j2)?)\b")
SHOWN = re.compile(r"```python\n# (\S+)\n")  # a file that a page shows whole, for readers to write


@cache
def list_paths() -> frozenset[str]:
    """Return the files of the repository and their folders: what a reader of a fresh clone finds."""
    files = list_files()
    folders = {str(parent) for file in files for parent in Path(file).parents}
    return frozenset({*files, *folders})


@pytest.mark.parametrize("page", list_pages())
def test_every_link_resolves(page: str) -> None:
    broken = [link for link in list_links(page) if not urlsplit(link).scheme and not resolves(page, link)]
    assert broken == []


def resolves(page: str, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = normpath(Path(page).parent / path) if path else page
    return target in list_paths() and (not anchor or anchor in list_anchors(target))


@pytest.mark.parametrize("page", list_pages())
def test_every_file_that_is_named_is_there(page: str) -> None:
    text = read_page(page)
    known = [*list_paths(), *SHOWN.findall(text)]
    assert [name for name in NAMED.findall(text) if name not in known] == []
