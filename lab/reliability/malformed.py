"""D-malformed: bytes that are hardly HTTP, straight at TorchServe, and a prediction that must be right now and then."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from lab.reliability.episodes import describe_failures
from lab.testbed.archives import SERVED
from lab.testbed.findings import Episode, Finding
from lab.testbed.raw_http import send_raw
from lab.testbed.world import World

GOLDEN_EVERY = 100
AT_A_TIME = 8
TIMEOUT_S = 3.0
PATH = f"/predictions/{SERVED}"
METHODS = ("POST", "GET", "PUT", "OPTIONS", "TRACE", "CONNECT", "post", "P\0ST", "", "X" * 300)
VERSIONS = ("HTTP/1.1", "HTTP/1.0", "HTTP/9.9", "HTTP/2", "HTTP", "", "http/1.1", "HTTP/1.1 HTTP/1.1")
PATHS = (
    PATH,
    "/",
    "*",
    "//",
    "/%zz",
    "/%00",
    "/../../etc/passwd",
    "http://[::1",
    "/predictions/",
    PATH + "?" + "a" * 9000,
)
LENGTHS = ("-1", "+5", "0x10", "99999999999999999999", "5, 6", "", "many", "1e3", " 7 ", "5\0")
CHUNK_SIZES = ("zz", "-1", "ffffffffffffffff", "", "5;" + "x" * 5000, "1\0", "0x5")
ODD_TYPES = (
    "multipart/form-data",
    "multipart/form-data; boundary=",
    'multipart/form-data; boundary="',
    ";",
    "\xff/\xff",
    "a" * 9000,
)
ODD_FORMS = (b"--\r\n\r\n--", b"--x\r\nContent-Disposition: form-data\r\n\r\n")
HEADERS = ("no colon", ": no name", "A" * 9000 + ": x", "X: " + "y" * 70_000, " folded: x", "a\0b: c\0", "X: \r")
PREFACES = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"\r\n" * 200,
    b"\0" * 100,
)


def run_malformed(world: World, count: int, seed: int, command: str, announce: Callable[[str], None]) -> Finding:
    before, frontend = world.worker_pids(), world.frontend().pid
    port, choose = world.server.ports()["inference_address"], random.Random(seed)
    stream = malformed_requests(choose, world.headers["Authorization"])
    statuses: Counter[int] = Counter()
    episode = Episode()
    golden = []
    with ThreadPoolExecutor(AT_A_TIME) as clients:
        for done in range(0, count, GOLDEN_EVERY):
            announce(f"{done} of {count}")
            requests = [next(stream) for _ in range(min(GOLDEN_EVERY, count - done))]
            answers = clients.map(lambda data: send_raw(port, [data], TIMEOUT_S, half_close=True), requests)
            statuses.update(answer.status for answer in answers)
            golden += world.send([world.good[done // GOLDEN_EVERY % len(world.good)]])
    failed = [exchange for exchange in golden if exchange.problem]
    episode.failures += describe_failures(failed, golden[0].due)
    episode.figures.update({"requests": count, "golden": len(golden)})
    episode.figures.update({f"answered_{status}" if status else "closed": n for status, n in sorted(statuses.items())})
    episode.bound("golden_failed", len(failed), 0)
    episode.bound("workers_replaced", len(set(world.worker_pids()) ^ set(before)), 0)
    episode.require(world.frontend().pid == frontend, "the frontend is another one")
    fault = f"{count} requests that are hardly HTTP, straight at TorchServe, {AT_A_TIME} at a time"
    must_hold = f"server and workers live on; a prediction after every {GOLDEN_EVERY} is right"
    return episode.as_finding("D-malformed", fault, must_hold, command)


def malformed_requests(choose: random.Random, authorization: str) -> Iterator[bytes]:
    """Yield without end; some of them let in by the server's token, so that they come further."""
    while True:
        yield choose.choice(KINDS)(choose, authorization)


def _request(authorization: str, body: bytes = b"", line: str = f"POST {PATH} HTTP/1.1", **headers: str) -> bytes:
    """Return a request with these headers over those of a good one; `_` in a name stands for `-`."""
    fields = {"Host": "localhost", "Authorization": authorization, "Content-Length": str(len(body))}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [line, *(f"{name}: {value}" for name, value in fields.items() if value is not None)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


def _two_lengths(choose: random.Random, authorization: str) -> bytes:
    line = f"POST {PATH} HTTP/1.1\r\nContent-Length: {choose.randrange(9)}"
    encoding = choose.choice(("chunked", "identity", "chunked, x"))
    return _request(authorization, b"abcdef", line, Transfer_Encoding=encoding)


def _odd_chunks(choose: random.Random, authorization: str) -> bytes:
    line = f"POST {PATH} HTTP/1.1\r\nTransfer-Encoding: chunked"
    size = choose.choice(CHUNK_SIZES).encode()
    chunked = _request(authorization, line=line).replace(b"Content-Length: 0\r\n", b"")
    return chunked + size + choose.choice((b"\r\n", b"\n", b"")) + b"hello\r\n0\r\n"


def _odd_headers(choose: random.Random, authorization: str) -> bytes:
    many = [f"X-{number}: y" for number in range(choose.choice((0, 1, 2000)))]
    return _request(authorization, b"x", "\r\n".join((f"POST {PATH} HTTP/1.1", choose.choice(HEADERS), *many)))


def _flipped(choose: random.Random, authorization: str) -> bytes:
    whole = bytearray(_request(authorization, b"{}", Content_Type="application/json"))
    for _ in range(choose.randrange(1, 6)):
        whole[choose.randrange(len(whole))] = choose.randrange(256)
    return bytes(whole)


# Each of a random source and the server's token.
KINDS: tuple[Callable[[random.Random, str], bytes], ...] = (
    lambda choose, _: choose.randbytes(choose.randrange(1, 2000)),
    lambda choose, _: choose.choice(PREFACES) + choose.randbytes(choose.randrange(50)),
    lambda choose, token: _request(token, b"x", " ".join(map(choose.choice, (METHODS, PATHS, VERSIONS)))),
    lambda choose, token: _request(token, b"abc", Content_Length=choose.choice(LENGTHS)),
    _two_lengths,
    _odd_chunks,
    lambda choose, token: _request(
        token, choose.choice((*ODD_FORMS, choose.randbytes(200))), Content_Type=choose.choice(ODD_TYPES)
    ),
    _odd_headers,
    _flipped,
    lambda choose, token: _request(token, b"x" * 100)[: choose.randrange(1, 150)],  # cut
    lambda choose, token: _request(token, b"x") + choose.randbytes(choose.randrange(1, 200)),
    lambda choose, token: _request(token, b"x", Expect=choose.choice(("100-continue", "200-ok", "", "\xff"))),
)
