"""The corpus: every kind of hostile request as an `Ask`, with the status and the answer that must come back.

A kind is made anew from a seed each time; what is known of its answer beforehand stands beside it, and of damaged
pictures, which may decode or not, the core says in process what is right.
"""

import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from functools import cache

import orjson

from lab.hostile import handler as hostile_handler
from lab.hostile.bombs import BOMBS
from lab.hostile.documents import DOCUMENTS
from lab.hostile.forms import FORMS, OPTIONS, RAW, REFUSED, SERVED_ALL_THE_SAME
from lab.hostile.pictures import DAMAGED, FOREIGN, ODD, TYPES, whole
from lab.hostile.server import AnsweringModel
from lab.testbed.archives import SERVED
from lab.testbed.traffic import Ask, Check

PATH = f"/predictions/{SERVED}"
MAX_ERROR_BYTES = 2048
ERROR_KEYS = ({"code", "type", "message"}, {"code", "type", "error"})  # ours, and that of V1 and V2
EVERYDAY_BYTES = 2_000_000  # a bomb above it is sent alone, and not among others by the thousand
Body = Callable[[random.Random], bytes]
RequestMaker = Callable[[AnsweringModel, random.Random], Ask]


def refusal(status: int, error: str) -> Check:
    """Return the error body of the contract, of either form, and nothing of the server's inside."""

    def check(body: bytes) -> str:
        if len(body) >= MAX_ERROR_BYTES:
            return f"an error of {len(body):,} bytes"
        try:
            answer = orjson.loads(body)
        except ValueError:
            return f"an error that is not JSON: {body[:200]!r}"
        if not isinstance(answer, dict) or answer.keys() not in ERROR_KEYS:
            return f"not the error body of the contract: {body[:200]!r}"
        if (answer["code"], answer["type"]) != (status, error):
            return f"{answer['code']} {answer['type']} instead of {status} {error}: {body[:200]!r}"
        return "a traceback in the answer" if b"Traceback" in body else ""

    return check


def known(name: str, body: Callable[[], bytes], headers: Mapping[str, str], status: int, error: str) -> RequestMaker:
    def make(truth: AnsweringModel, choose: random.Random) -> Ask:
        return Ask(name, PATH, body(), headers, status, refusal(status, error), good=False)

    return make


def told(name: str, body: Body, headers: Mapping[str, str] = RAW, good: bool = False) -> RequestMaker:
    """Judge by what the core says in process of that very body."""

    def make(truth: AnsweringModel, choose: random.Random) -> Ask:
        data = body(choose)
        status, check = truth.expect(data)
        return Ask(name, PATH, data, headers, status, check, good)

    return make


def _always(body: Callable[[], bytes]) -> Callable[[random.Random], bytes]:
    made = cache(body)
    return lambda choose: made()


def _fixed(body: bytes) -> Callable[[], bytes]:
    return lambda: body


BOMB_KINDS: dict[str, RequestMaker] = {
    name: known(name, cache(bomb.make), RAW, bomb.status, TYPES[bomb.status])
    if bomb.status != 200
    else told(name, _always(bomb.make))
    for name, bomb in BOMBS.items()
}
# What is refused, or may be.
HOSTILE: dict[str, RequestMaker] = {
    **{name: told(name, make) for name, make in DAMAGED.items()},
    **{name: known(name, _fixed(body), RAW, status, TYPES[status]) for name, (body, status) in FOREIGN.items()},
    **{
        name: known(name, _fixed(posted.body), posted.headers, posted.status, posted.error)
        for name, posted in {**DOCUMENTS, **FORMS, **REFUSED}.items()
    },
}
# What is served, however odd it is.
HARMLESS: dict[str, RequestMaker] = {
    **{name: told(name, _always(make), good=True) for name, make in ODD.items()},
    **{
        name: told(name, _always(_fixed(entry.body)), entry.headers, good=True)
        for name, entry in SERVED_ALL_THE_SAME.items()
    },
}


def hostile_asks(truth: AnsweringModel, seed: int) -> Iterator[Ask]:
    """Yield without end: all kinds in turn, each time others of those that are random."""
    choose = random.Random(seed)
    small = {name: kind for name, kind in BOMB_KINDS.items() if len(BOMBS[name].make()) <= EVERYDAY_BYTES}
    kinds = {**HOSTILE, **small}
    return (kinds[name](truth, choose) for name in itertools.cycle(kinds))


# top_k -> status and type of the answer; `null` stands for nothing.
OUTCOMES: dict[int, tuple[int, str]] = {
    909: (200, ""),
    **dict.fromkeys((901, 902, 903, 905, 906, 907, 908), (500, "InferenceError")),
    904: (413, "PayloadTooLargeError"),
    **dict.fromkeys((910, 911, 912), (500, "InferenceError")),
    913: (400, "RequestError"),
    hostile_handler.ODD_HEADERS: (200, ""),
}


def odd_answer_asks() -> list[Ask]:
    """Return a request for each answer of hostile_handler.py; it gets one of its own, which is JSON."""
    return [
        Ask(
            f"top_k={top_k}",
            PATH,
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
    return f"{len(body):,} bytes" if len(body) > MAX_ERROR_BYTES else ""
