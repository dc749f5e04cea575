"""Requests for the answers of hostile_handler.py: each gets one of its own, which is JSON, whatever the model gave."""

import orjson

from lab.hostile import handler as hostile_handler
from lab.hostile.forms import OPTIONS, RAW
from lab.hostile.pictures import whole
from lab.hostile.requests import refusal
from lab.hostile.truth import AnsweringModel
from lab.testbed.traffic import Ask

LARGEST_BYTES = 2048
# top_k -> status and type of the answer; `null` stands for a number that JSON has not, and for nothing.
OUTCOMES: dict[int, tuple[int, str]] = {
    901: (200, ""),
    902: (200, ""),
    909: (200, ""),
    **dict.fromkeys((903, 905, 906, 907, 908), (500, "InferenceError")),
    904: (413, "PayloadTooLargeError"),
    **dict.fromkeys((910, 911, 912), (500, "InferenceError")),
    913: (400, "RequestError"),
    hostile_handler.ODD_HEADERS: (200, ""),
}


def odd_answer_asks(truth: AnsweringModel) -> list[Ask]:
    """Return one for each."""
    return [
        Ask(
            f"top_k={top_k}",
            truth.path,
            whole("PNG"),
            {**RAW, OPTIONS: f"top_k={top_k}"},
            status,
            refusal(status, error) if error else is_small_json,
            good=False,
        )
        for top_k, (status, error) in OUTCOMES.items()
    ]


def is_small_json(body: bytes) -> str:
    try:
        orjson.loads(body)
    except ValueError:
        return f"not JSON: {body[:200]!r}"
    return f"{len(body):,} bytes" if len(body) > LARGEST_BYTES else ""
