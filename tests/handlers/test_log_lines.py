import json

import pytest

from vision_serving.log_lines import escape, escape_lines, to_json_line

TEXTS = {
    "plain": ("café 7 漢字", "café 7 漢字"),
    "line breaks": ("a\nb\r\nc\x0bd\u2028e\x85f", r"a\nb\r\nc\x0bd\u2028e\x85f"),
    "colours of a terminal": ("\x1b[31mred\x9b0m", r"\x1b[31mred\x9b0m"),
    "text turned around": ("\u202egnp.exe\u2066", r"\u202egnp.exe\u2066"),
    "half a letter": ("\ud83d", r"\ud83d"),
    "nothing": ("\x00\x7f", r"\x00\x7f"),
}


@pytest.mark.parametrize(("text", "expected"), TEXTS.values(), ids=TEXTS)
def test_what_is_not_printable_is_escaped(text: str, expected: str) -> None:
    assert escape(text) == expected


def test_no_line_of_a_text_begins_as_one_of_torchserves_own() -> None:
    said = escape_lines("ValueError: a\r\n[METRICS]x\u2028[PID]1\x1b[0m\n")
    assert said == " ValueError: a\n [METRICS]x\n [PID]1\\x1b[0m"


@pytest.mark.parametrize("text", [text for text, _ in TEXTS.values()], ids=TEXTS)
def test_json_is_one_line_of_plain_ascii(text: str) -> None:
    line = to_json_line({"text": text, "quote": 'a"b\\'})
    assert all(" " <= letter <= "~" for letter in line)
    assert json.loads(line) == {"text": text, "quote": 'a"b\\'}
