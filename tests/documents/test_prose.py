"""The pages are in plain English: short sentences, and words that a reader knows."""

import re
import statistics

import pytest
from markdown_pages import list_pages, list_paragraphs, list_sentences, read_page

WRITTEN = list_pages()
MOST_WORDS = 25
MEAN_WORDS = 17
BANNED = ("such as", "for want of", "of old", "shall", "who takes longer", "told to nobody")


@pytest.mark.parametrize("page", WRITTEN)
def test_no_sentence_is_long(page: str) -> None:
    long = [" ".join(words) for words in list_sentences(page) if len(words) > MOST_WORDS]
    assert long == []


@pytest.mark.parametrize("page", WRITTEN)
def test_sentences_are_short_on_average(page: str) -> None:
    assert statistics.mean(len(words) for words in list_sentences(page)) < MEAN_WORDS


@pytest.mark.parametrize("page", WRITTEN)
def test_semicolons_are_few(page: str) -> None:
    """In prose. Tables may enumerate with them."""
    text = " ".join(list_paragraphs(page))
    assert text.count(";") <= len(text.split()) / 250 + 1


@pytest.mark.parametrize("page", WRITTEN)
def test_the_words_are_plain(page: str) -> None:
    text = " ".join(re.sub(r"`[^`]*`", "", read_page(page)).lower().split())
    assert [words for words in BANNED if re.search(rf"\b{re.escape(words)}\b", text)] == []
