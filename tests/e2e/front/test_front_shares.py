"""What one client may take of a server that others share: parts of forms, bytes under way, explanations."""

import json
import secrets
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from mar_tools.serving.config_file import with_values
from mar_tools.serving.memory_bounds import SMALL, read_bounds
from mar_tools.waiting import wait_until
from vision_serving.worker.server_settings import read_properties

from .conftest import PREDICT, TIMEOUT_S, Running, configure_upstream, raw, run_front
from .faults import Upstream, connect, exchange

BOUNDARY = "a-word"
UNSUPPORTED = "UnsupportedMediaTypeError"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
DELIMITER = f"--{BOUNDARY}\r\n".encode()
FILE = b'Content-Disposition: form-data; name="image"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
FIELD = b'Content-Disposition: form-data; name="top_k"\r\n\r\n3'
UNNAMED = FILE.replace(b'; filename="a.png"', b"")
WINDOW = 1 << 18  # of front.js, whose next one must see a delimiter that this one cuts
EXPLAIN = "/explanations/digits"
CONNECTIONS = 64
LIMITS = {"connections_of_an_address": CONNECTIONS, "header_timeout_s": 10, "explanations_at_once": 2}
HALF_A_HEADER = b"POST /predictions/digits HTTP/1.1\r\nX-Slow: "


def form(*parts: bytes) -> bytes:
    return b"".join(DELIMITER + part + b"\r\n" for part in parts) + f"--{BOUNDARY}--\r\n".encode()


def ask(
    front: Running, body: bytes, kind: str = FORM, path: str = PREDICT, key: str | None = None
) -> requests.Response:
    headers = {"Content-Type": kind} | ({"X-Api-Key": key} if key else {})
    response: requests.Response = front.request("POST", path, headers, data=body)
    return response


@pytest.fixture(scope="module")
def front(told: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A front before an upstream that may be slow."""
    folder = tmp_path_factory.mktemp("shares")
    with run_front(folder, configure_upstream(folder, told), answer_timeout_s=TIMEOUT_S, **LIMITS) as running:
        yield running


@pytest.fixture
def held(told: Upstream) -> Iterator[Upstream]:
    """An upstream that keeps what it is asked until its gate is opened."""
    told.requests.clear()
    told.gate.clear()
    yield told
    told.gate.set()


@pytest.fixture(autouse=True)
def _afresh(told: Upstream) -> Iterator[None]:
    told.requests.clear()
    yield
    told.status = 200
    told.headers.clear()


def wait_for(found: Callable[[], bool]) -> None:
    assert wait_until(found, TIMEOUT_S)


MIXED = b"Content-Type: multipart/mixed; boundary=y\r\n\r\n" + b"--y\r\n\r\nA\r\n" * 9


def header(*lines: bytes) -> bytes:
    return b"".join(line + b"\r\n" for line in lines) + b"\r\nx"


# Part headers that TorchServe's HTTP library reads in another way than they look, or fails on.
HEADERS = {
    "blank line": b" \r\n\r\n" + FIELD[:-3] + MIXED,
    "no header": b"\r\nx",
    "control characters": b"\x01\x02\r\n\r\n" + FIELD[:-3] + MIXED,
    "NEL": b"\x85\r\n\r\n" + FIELD[:-3] + MIXED,
    "bare line feed": b'Content-Disposition: form-data; name="a"\nX: y\r\n\r\nx',
    "bare carriage return": b'Content-Disposition: form-data; name="a"\rX: y\r\n\r\nx',
    "folded": header(b"Content-Disposition: form-data;", b' name="a"'),
    "blank before the colon": header(b'Content-Disposition : form-data; name="a"'),
    "Latin-1": header('Content-Disposition: form-data; name="image"; filename="é.png"'.encode("latin-1")),
    "parameters": header(b'Content-Disposition: form-data; name="a"' + b"; size=1" * 9),
    "another parameter": header(b'Content-Disposition: form-data; name="a"; charset=foo'),
    "parameters of a type": header(FIELD[:-5], b"Content-Type: image/png" + b"; a=b" * 9),
    "charset": header(FIELD[:-5], b"Content-Type: text/plain; charset=foo"),
    "charset of a name": header(b"Content-Disposition: form-data; name=a; filename*=foo''x"),
    "half a percent": header(b"Content-Disposition: form-data; name=a; filename*=utf-8''%2"),
    "two types": header(FIELD[:-5], b"Content-Type: text/plain, multipart/mixed"),
    "base64": header(FIELD[:-5], b"Content-Transfer-Encoding: base64"),
    "no name": header(b'Content-Disposition: form-data; filename="a.png"'),
    "empty name": header(b'Content-Disposition: form-data; name="a"; name=""'),
    "a name of signs": header(b'Content-Disposition: form-data; name=" =;"'),
    "a name in a file's": header(b'Content-Disposition: form-data; filename="; name=a"'),
    "no disposition": header(b"Content-Type: image/png"),
    "attachment": header(b'Content-Disposition: attachment; name="a"; filename="a.png"'),
    "the boundary in a part": FILE + b"x" + DELIMITER + FIELD,
}

REFUSED: dict[str, tuple[bytes, str, int, str]] = {
    "tiny fields": (form(*[b"\r\n\r\n"] * 300_000), FORM, 413, "TooManyPartsError"),
    "one part more": (form(*[FIELD] * 257), FORM, 413, "TooManyPartsError"),
    "files": (form(*[FILE] * 1000), FORM, 413, "TooManyPartsError"),
    "without line ends": (f"--{BOUNDARY}".encode() * 300, FORM, 413, "TooManyPartsError"),
    "after a picture": (form(FILE + bytes(5_000_000), *[FIELD] * 257), FORM, 413, "TooManyPartsError"),
    "a form in a form": (
        form(FILE.replace(b"image/png", b"Multipart/Mixed; boundary=b") + b"--b\r\n" * 9), FORM, 400, "FormError",
    ),
    "long header": (form(b"X: " + b"x" * 9000 + b"\r\n" + FILE), FORM, 400, "FormError"),
    "no boundary": (form(FILE), "multipart/form-data", 415, UNSUPPORTED),
    "two boundaries": (form(FILE), f"multipart/form-data; boundary=b; boundary={BOUNDARY}", 415, UNSUPPORTED),
    "behind another": (form(FILE), f"image/png, multipart/form-data; boundary={BOUNDARY}", 415, UNSUPPORTED),
    "other multipart": (form(FILE), f"multipart/mixed; boundary={BOUNDARY}", 415, UNSUPPORTED),
    "EBCDIC": (form(FIELD.decode().encode("cp037")), FORM + "; charset=IBM037", 415, UNSUPPORTED),
    "unknown charset": (form(FILE), f"multipart/form-data; charset=foo; boundary={BOUNDARY}", 415, UNSUPPORTED),
    "another boundary": (form(FILE).replace(BOUNDARY.encode(), b"other"), FORM, 400, "FormError"),
    "a byte before": (b"x" + form(FILE), FORM, 400, "FormError"),
    "a line before": (b"x\r\n" + form(FILE), FORM, 400, "FormError"),
    **{name: (form(FIELD, part), FORM, 400, "FormError") for name, part in HEADERS.items()},
}  # fmt: skip


@pytest.mark.parametrize("path", [PREDICT, EXPLAIN, "/v2/models/digits/infer"])
@pytest.mark.parametrize(("body", "kind", "status", "error"), REFUSED.values(), ids=REFUSED)
def test_a_form_that_costs_memory_is_refused_before_torchserve_sees_it(
    front: Running, told: Upstream, body: bytes, kind: str, status: int, error: str, path: str
) -> None:
    response = ask(front, body, kind, path)
    assert (response.status_code, response.json()["type"], told.requests) == (status, error, [])


NAMED = 'Content-Disposition: form-data; name="image"; filename="{}"'
# As clients write the header of a part.
CLIENTS = {
    "curl": [NAMED.format(r"a b;c, \"d\".png"), "Content-Type: image/png"],
    "requests": ["Content-Disposition: form-data; name=\"image\"; filename*=utf-8''%C3%A9%20%281%29.png"],
    "aiohttp": ["Content-Type: text/plain; charset=utf-8", 'Content-Disposition: form-data; name="top_k"'],
    "Chromium": [NAMED.format("日本 %22é%22.png"), "Content-Type: image/svg+xml"],
    "Firefox, no file": [NAMED.format(""), "Content-Type: application/octet-stream"],
    "Windows": [NAMED.format(r"C:\é\a.png"), "Content-Type: image/jpeg"],
    "Apache": [NAMED.format("a"), "Content-Type: text/plain; charset=ISO-8859-1", "Content-Transfer-Encoding: 8bit"],
    "Spring": [NAMED.format("a.png"), "Content-Type: image/png", "Content-Length: 1234"],
    "OkHttp": [NAMED.format("a.png"), "Content-Transfer-Encoding: binary", "Content-Type: image/png"],
    "Go": [NAMED.format(r"a\\b.png"), "Content-Type: application/octet-stream", "X-Own: 1"],
    ".NET": ["Content-Type: text/plain;charset=utf-8", "Content-Disposition: form-data; name=a; filename=a.png; "
             "filename*=utf-8''a.png"],
}  # fmt: skip

PASSED = {
    **{name: form("\r\n".join([*lines, "", "--a"]).encode()) for name, lines in CLIENTS.items()},
    "a line break before": b"\r\n" + form(FILE),
    "one file": form(FILE + b"pixels"),
    "as many as may be": form(FILE, *[FIELD] * 255),
    "larger than the memory of a body": form(FILE + bytes(5_000_000), FIELD),
    **{f"delimiter {cut} bytes into a window": form(FILE + bytes(WINDOW - len(DELIMITER + FILE) - 2 - cut), FIELD)
       for cut in (0, 1, 7)},
}  # fmt: skip


@pytest.mark.parametrize("body", PASSED.values(), ids=PASSED)
@pytest.mark.parametrize(
    "kind", [FORM, f'multipart/form-data; charset=utf-8; boundary="{BOUNDARY}"', FORM + ";charset=ISO-8859-1"]
)
def test_a_form_of_pictures_passes_as_it_is(front: Running, told: Upstream, body: bytes, kind: str) -> None:
    assert ask(front, body, kind).status_code == 200
    [(_, headers, received)] = told.requests
    assert (headers["content-type"], received == body) == (kind, True)


TRIES = {
    "picture": (b"x", "image/jpeg", PREDICT, 2),
    "JSON": (b"{}", "application/json", PREDICT, 2),
    "form with a file": (form(FILE), FORM, PREDICT, 2),
    "form with a picture without a name": (form(UNNAMED), FORM, PREDICT, 2),
    "form without a file": (form(FIELD), FORM, PREDICT, 1),
    "form with a field of that name": (form(FIELD.replace(b"top_k", b"filename")), FORM, PREDICT, 1),
    "form with a field of a type": (form(b"Content-Type: text/plain\r\n" + FIELD), FORM, PREDICT, 1),
    "empty form": (b"", FORM, PREDICT, 1),
    "text": (b"x", "text/plain", PREDICT, 1),
    "explanation": (b"x", "image/jpeg", EXPLAIN, 1),
}


@pytest.mark.parametrize(("body", "kind", "path", "tries"), TRIES.values(), ids=TRIES)
def test_only_pictures_to_predict_are_asked_twice(
    front: Running, told: Upstream, body: bytes, kind: str, path: str, tries: int
) -> None:
    told.status = 507
    assert ask(front, body, kind, path).status_code == 507
    assert len(told.requests) == tries


LARGE = bytes(9 * SMALL)


@pytest.mark.parametrize(("lane", "body"), [("medium", bytes(SMALL + 1)), ("large", LARGE)], ids=["medium", "large"])
def test_bytes_under_way_are_bounded_over_all_clients_and_small_pictures_pass(
    front: Running, held: Upstream, lane: str, body: bytes
) -> None:
    most = getattr(read_bounds(read_properties(front.config.read_text()), reserved_large=2), lane)
    keys = [front.add_client(f"{lane}-{number}") for number in range(8)]  # each may have a quarter
    with ThreadPoolExecutor(3 * most + 1) as pool:
        sent = [pool.submit(ask, front, body, "image/png", key=keys[number % 8]) for number in range(3 * most)]
        wait_for(lambda: sum(answer.done() for answer in sent) == 2 * most)
        small = pool.submit(ask, front, b"x", "image/png")
        wait_for(lambda: len(held.requests) == most + 1)
        held.gate.set()
        assert small.result().status_code == 200
    answers = [answer.result() for answer in sent]
    statuses = [answer.status_code for answer in answers]
    assert (statuses.count(200), set(statuses) <= {200, 429, 503}) == (most, True)
    assert {answer.headers.get("Retry-After") for answer in answers} == {None, "1"}


def test_a_server_whose_places_are_all_taken_is_alive(held: Upstream, tmp_path: Path) -> None:
    config = configure_upstream(tmp_path, held)
    few = {"vmargs": "-Xmx300m", "max_request_size": str(SMALL), "job_queue_size": "9"}
    config.write_text(with_values(config.read_text(), few))
    most = read_bounds(read_properties(config.read_text()), reserved_large=1).small
    limits = {"explanations_at_once": 1, "concurrent_requests": most + 2}
    with run_front(tmp_path, config, **limits) as front, ThreadPoolExecutor(most + 2) as pool:
        predicted = [pool.submit(ask, front, b"x", "image/png") for _ in range(most)]
        wait_for(lambda: len(held.requests) == most)
        assert ask(front, b"x", "image/png").status_code == 503
        probes = [pool.submit(front.request, "GET", path) for path in ("/ping", "/v2/health/live")]
        wait_for(lambda: any(answer.done() for answer in probes) or len(held.requests) == most + 2)
        held.gate.set()
        assert [answer.result().status_code for answer in probes + predicted] == [200] * (most + 2)


def test_explanations_are_few_at_once_over_all_clients(front: Running, held: Upstream) -> None:
    keys = [front.add_client(f"asker-{number}") for number in range(3)]
    with ThreadPoolExecutor(3) as pool:
        first = [pool.submit(ask, front, b"x", "image/png", EXPLAIN, key) for key in keys[:2]]
        wait_for(lambda: len(held.requests) == 2)
        full = ask(front, b"x", "image/png", EXPLAIN, keys[2])
        held.gate.set()
        assert [answer.result().status_code for answer in first] == [200, 200]
    assert (full.status_code, full.json()["type"], full.headers["Retry-After"]) == (503, "ServerBusyError", "1")
    assert len(held.requests) == 2


@pytest.mark.parametrize(("body", "kind"), [(form(FILE), FORM), (b"x", "image/png")], ids=["form", "raw"])
def test_a_client_has_one_explanation_at_a_time_and_predicts_beside_it(
    front: Running, held: Upstream, body: bytes, kind: str
) -> None:
    key = front.add_client(f"curious-{kind[0]}")
    with ThreadPoolExecutor(9) as pool:
        explained = [pool.submit(ask, front, body, kind, EXPLAIN, key) for _ in range(8)]
        wait_for(lambda: sum(answer.done() for answer in explained) == 7)
        picture = pool.submit(ask, front, b"x", "image/png", key=key)
        wait_for(lambda: len(held.requests) == 2)
        held.gate.set()
        assert picture.result().status_code == 200
    answers = [answer.result() for answer in explained]
    assert sorted(answer.status_code for answer in answers) == [200] + [429] * 7
    assert {answer.headers["Retry-After"] for answer in answers if answer.status_code == 429} == {"1"}


def test_an_explanation_and_a_large_body_of_a_client_take_turns(front: Running, held: Upstream) -> None:
    """Together they would hold two workers, and with them the shipped server."""
    key, other = front.add_client("costly"), front.add_client("costly-too")
    with ThreadPoolExecutor(2) as pool:
        explained = pool.submit(ask, front, b"x", "image/png", EXPLAIN, key)
        wait_for(lambda: len(held.requests) == 1)
        assert ask(front, LARGE, "image/png", key=key).status_code == 429
        large = pool.submit(ask, front, LARGE, "image/png", key=other)
        wait_for(lambda: len(held.requests) == 2)
        held.gate.set()
        assert [explained.result().status_code, large.result().status_code] == [200, 200]
    assert ask(front, LARGE, "image/png", key=key).status_code == 200


def is_answered(front: Running, source: str) -> bool:
    try:
        with connect(front.address, TIMEOUT_S, source) as connection:
            connection.sendall(raw("GET", "/nothing")("wrong"))
            return b" 404 " in connection.recv(4096)
    except OSError:  # closed before its handshake
        return False


def hold(front: Running, kind: str, source: str) -> socket.socket:
    if kind == "no handshake":
        return socket.create_connection(front.address, TIMEOUT_S, (source, 0))
    connection = connect(front.address, TIMEOUT_S, source)
    connection.sendall(HALF_A_HEADER if kind == "half a header" else b"")
    return connection


def is_cut(connection: socket.socket) -> bool:
    try:
        while connection.recv(4096):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def test_connections_of_an_address_are_bounded_before_they_have_a_key(front: Running) -> None:
    sources = {"no handshake": "127.0.0.2", "no request": "127.0.0.3", "half a header": "127.0.0.4"}
    held: list[socket.socket] = []
    try:
        for kind, source in sources.items():
            held += [hold(front, kind, source) for _ in range(CONNECTIONS)]
            wait_for(lambda source=source: not is_answered(front, source))  # type: ignore[misc]
            assert is_answered(front, "127.0.0.1")
        assert all(map(is_cut, held))  # after header_timeout_s
    finally:
        for connection in held:
            connection.close()
    for source in sources.values():
        wait_for(lambda source=source: is_answered(front, source))  # type: ignore[misc]


def test_wrong_keys_are_refused_before_their_body_and_end_no_connection(front: Running, told: Upstream) -> None:
    with connect(front.address, TIMEOUT_S) as connection:
        for number in range(300):
            connection.sendall(f"GET /v2 HTTP/1.1\r\nHost: x\r\nX-Api-Key: wrong-{number}\r\n\r\n".encode())
            assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")
    body = raw("POST", PREDICT, "Content-Length: 20000000")
    assert exchange(front.address, body("wrong")).startswith(b"HTTP/1.1 401 ")
    assert told.requests == []


@pytest.mark.parametrize(("own", "wait"), [({"Retry-After": "7"}, "7"), ({}, "1")], ids=["its own", "none"])
def test_what_a_worker_says_of_the_wait_is_said_once(
    front: Running, told: Upstream, own: dict[str, str], wait: str
) -> None:
    told.status = 503
    told.headers.update(own)
    answer = ask(front, b"x", "image/png", EXPLAIN)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, wait)


FOLLOWED = [  # as long as they may be
    "X-Request-Id: " + "a" * 128,
    "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "tracestate: a=" + "x" * 510,
]
LONG_HEADERS = {
    "one, 9 KB": (["X-Long: " + "a" * 9000], PREDICT, 200),
    "one, 33 KB": (["X-Long: " + "a" * 33000], PREDICT, 431),
    "the key": (["Authorization: Bearer " + "a" * 9000], PREDICT, 401),
    "many, 30 KB": ([f"X-{number}: " + "a" * 300 for number in range(95)], PREDICT, 200),
    "many, 150 KB": ([f"X-{number}: " + "a" * 300 for number in range(480)], PREDICT, 431),
    "options": (["X-Inference-Options: top_k=" + "1" * 7500], PREDICT, 431),
    "options that fit": (["X-Inference-Options: top_k=" + "1" * 6500, *FOLLOWED], PREDICT, 200),
    "two that pass": (["Accept: " + "a" * 4000, "Content-Type: image/" + "a" * 4000], PREDICT, 431),
    "options and query": (["X-Inference-Options: top_k=" + "1" * 4000], PREDICT + "?top_k=" + "2" * 4000, 431),
    "query": ([], PREDICT + "?top_k=" + "2" * 7500, 431),
    "path": ([], PREDICT + "a" * 5000, 414),
}


@pytest.mark.parametrize(("lines", "path", "status"), LONG_HEADERS.values(), ids=LONG_HEADERS)
def test_long_headers_get_the_fronts_own_answer_and_never_reach_torchserve(
    front: Running, told: Upstream, lines: list[str], path: str, status: int
) -> None:
    answer = exchange(front.address, raw("POST", path, "Content-Length: 1", *lines, body=b"x")(front.key))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert int(head.split()[1]) == status
    if status != 200:
        assert (json.loads(body)["code"], b"application/json" in head, told.requests) == (status, True, [])
    for _, headers, *_ in told.requests:
        assert sum(len(f"{name}: {value}\r\n") for name, value in headers.items()) <= 8192, "more TorchServe refuses"


def test_a_long_path_of_a_description_is_refused(front: Running) -> None:
    response = front.request("GET", "/v2/models/" + "a" * 9000)
    assert (response.status_code, response.json()["type"]) == (414, "UriTooLongError")


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
@pytest.mark.parametrize(("name", "status"), [("X-Long", 200), ("X-Inference-Options", 431)])
def test_long_headers_of_http2_are_answered(front: Running, name: str, status: int) -> None:
    long = f"{name}: " + secrets.token_urlsafe(15_000)  # 20 KB, which HTTP/2 cannot pack
    command = ["curl", "-sS", "--http2", "-k", "-w", "%{http_code}", "-H", f"X-Api-Key: {front.key}", "-H", long]
    finished = subprocess.run([*command, "-T", "-", front.front.url + PREDICT], input=b"x", capture_output=True)
    assert finished.stdout.endswith(str(status).encode())
    assert (b'"HeadersTooLargeError"' in finished.stdout) == (status == 431)
