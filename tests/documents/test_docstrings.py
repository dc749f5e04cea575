"""The docstring of a function begins with a verb: what it does, not what it is about."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from markdown_pages import ROOT, list_files

FOLDERS = ("handlers", "scripts", "client", "lab")
WORD = re.compile(r"\w+")
FUNCTION_WORDS = frozenset(
    WORD.findall(
        "A About Above After All Also Always An And Another Any Around As At Because Before Behind Below Beside "
        "Between Both But By Each Either Every First For From Here How If In Into It Its Itself Left More Most "
        "Neither Never No None Not Nothing Of On One Only Or Other Others Our Ours Over Same Several So Some Such "
        "That The Their Then There These They This Those Three To Two Under Until Up What When Where Whether Which "
        "While Who Whose Why With Within Without "
    )
)
PLAIN_WORD = re.compile(r"[A-Z][a-z-]+\b")


def list_first_words(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the name of each function that has a docstring, and the docstring's first word."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (docstring := ast.get_docstring(node)):
            yield node.name, docstring.split()[0]


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_docstring_of_a_function_begins_with_a_verb(folder: str) -> None:
    wrong = [
        f"{name}: {function} begins with {word!r}"
        for name in list_files(f"{folder}/*.py")
        for function, word in list_first_words(ROOT / name)
        if not PLAIN_WORD.match(word) or word.strip(".,:;") in FUNCTION_WORDS
    ]
    assert wrong == []
