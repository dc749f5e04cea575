"""Where a request comes from: its id, the trace of its caller, and when the front had it.

Before the front, all of these are a client's own words, so what is not plain is left out.
"""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# As deploy/nginx/nginx.conf has them.
PLAIN_ID = re.compile(r"[A-Za-z0-9][\w.:/+=@-]{0,127}", re.ASCII)
TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
# Pairs that tracing systems added, between commas; 512 characters are what each of them has to pass on.
MEMBER = r"[a-z0-9][a-z0-9_*/@-]*=[ -+\--<>-~]*[!-+\--<>-~]"
TRACESTATE = re.compile(rf"(?=.{{1,512}}\Z){MEMBER}(?:[ \t]*,[ \t]*{MEMBER}){{0,31}}")
STARTED_HEADER = "x-request-start"  # `t=` and the seconds since 1970 when the front asked TorchServe
SECONDS = re.compile(r"t=(\d{1,12}(?:\.\d{1,9})?)", re.ASCII)
LONGEST_AGE_S = 3600.0  # of a request; what is older, or to come, was not told by this machine's clock
SAMPLED = 1


@dataclass(frozen=True)
class Parent:
    """A caller's span (W3C Trace Context). sampled: whether the caller records the trace. state: its `tracestate`."""

    trace_id: str
    span_id: str
    sampled: bool
    state: str = ""


@dataclass(frozen=True)
class Correlation:
    """What one request's headers say.

    id          the caller's `X-Request-Id`, or else the one that TorchServe gave; empty where neither is there
    server_id   the one that TorchServe gave: of a request that did not come by the front, its answer has it
    arrived_s   seconds since 1970 when the front began to receive the request, None without a front
    started_s   when the front asked the server
    """

    id: str
    server_id: str
    parent: Parent | None
    arrived_s: float | None
    started_s: float | None


def read_correlation(headers: Mapping[str, Any], server_id: object = None) -> Correlation:
    """Read what a request's headers say. server_id: TorchServe's own id of the request."""
    found = {name.lower(): value for name, value in headers.items() if isinstance(value, str)}
    own = server_id if isinstance(server_id, str) and PLAIN_ID.fullmatch(server_id) else ""
    asked = found.get("x-request-id", "")
    now = time.time()
    return Correlation(
        id=asked if PLAIN_ID.fullmatch(asked) else own,
        server_id=own,
        parent=read_parent(found.get("traceparent", ""), found.get("tracestate", "")),
        arrived_s=read_time(found.get("x-request-arrived"), now),
        started_s=read_time(found.get(STARTED_HEADER), now),
    )


def read_parent(traceparent: str, tracestate: str = "") -> Parent | None:
    """Return the span that a `traceparent` names, None where it is none of version 00."""
    found = TRACEPARENT.fullmatch(traceparent)
    if found is None:
        return None
    state = tracestate if TRACESTATE.fullmatch(tracestate) else ""
    return Parent(found[1], found[2], bool(int(found[3], 16) & SAMPLED), state)


def read_time(text: object, now: float) -> float | None:
    """Return the seconds since 1970 that a header of the front says, None where that cannot be its clock's."""
    found = SECONDS.fullmatch(text) if isinstance(text, str) else None
    if not found:
        return None
    seconds = float(found[1])
    return seconds if now - LONGEST_AGE_S < seconds <= now else None
