"""The project's Markdown pages as their readers see them: sentences, headings, links."""

import itertools
import json
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[2]
PARSER = MarkdownIt().enable("table")
SENTENCE_END = re.compile(r"(?<!\.\.)(?<=[.!?])[)\"']*\s+")
WORD = re.compile(r"\w")


@cache
def list_files(pattern: str = ".") -> tuple[str, ...]:
    """Return the path of every file that a fresh clone has, or will have, from the root of the repository."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", pattern]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return tuple(sorted(name for name in listed.stdout.splitlines() if (ROOT / name).is_file()))


def list_pages() -> tuple[str, ...]:
    return (*list_files("*.md"), *list_files("*.ipynb"))


def read_page(name: str) -> str:
    """Return the text of a page. The cells of a notebook are paragraphs and blocks of code."""
    text = (ROOT / name).read_text(encoding="utf-8")
    if not name.endswith(".ipynb"):
        return text
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(text)["cells"]]
    return "\n\n".join(source if kind == "markdown" else f"```python\n{source}\n```" for kind, source in cells)


@cache
def parse_page(name: str) -> list[Token]:
    return PARSER.parse(read_page(name))


def list_paragraphs(name: str) -> Iterator[str]:
    """Yield the text of each paragraph and list item. Tables, headings and code are no prose."""
    tokens = parse_page(name)
    for before, token in itertools.pairwise(tokens):
        if token.type == "inline" and before.type == "paragraph_open":
            yield show_text(token)


def list_sentences(name: str) -> Iterator[list[str]]:
    """Yield the words of each sentence. Code counts as one word."""
    for paragraph in list_paragraphs(name):
        for sentence in SENTENCE_END.split(paragraph):
            words = [word for word in sentence.split() if WORD.search(word)]
            if words:
                yield words


def show_text(token: Token) -> str:
    """Return what a reader sees of an inline token, with each piece of code as one word."""
    shown = {"softbreak": " ", "hardbreak": " ", "code_inline": "`code`", "image": ""}
    return "".join(shown.get(child.type, child.content) for child in token.children or [])


def list_links(name: str) -> Iterator[str]:
    """Yield the target of each link and picture."""
    for token in parse_page(name):
        for child in token.children or []:
            if child.type == "link_open":
                yield str(child.attrs["href"])
            elif child.type == "image":
                yield str(child.attrs["src"])
            elif child.type == "html_inline":
                yield from re.findall(r'(?:href|src)="([^"]+)"', child.content)
        if token.type == "html_block":
            yield from re.findall(r'(?:href|src)="([^"]+)"', token.content)


@cache
def list_anchors(name: str) -> frozenset[str]:
    """Return the anchors that a page's headings get on GitHub."""
    tokens = parse_page(name)
    headings = [after for token, after in itertools.pairwise(tokens) if token.type == "heading_open"]
    return frozenset(make_anchor("".join(child.content for child in heading.children or [])) for heading in headings)


def make_anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
