"""Anyone's text for a log: nothing in it ends a line, moves a cursor, or hides what stands beside it."""

import json
from collections.abc import Mapping


def escape(text: str) -> str:
    """Return a text in one line of printable characters; others stand in it as Python escapes them."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def escape_lines(text: str) -> str:
    """Return a text of several lines, each escaped and indented.

    TorchServe takes lines that begin with [METRICS] or [PID] for its own.
    """
    return "\n".join(f" {escape(line)}" for line in text.splitlines())


def to_json_line(values: Mapping[str, object]) -> str:
    """Return a JSON object in one line of plain ASCII."""
    return json.dumps(values).replace("\x7f", "\\u007f")
