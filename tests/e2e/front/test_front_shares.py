"""What one client may take of a server that others share: parts of forms, bytes under way, explanations."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from mar_tools.serving.memory_bounds import SMALL, read_bounds
from mar_tools.waiting import wait_until
from vision_serving.worker.server_settings import read_properties

from .conftest import PREDICT, TIMEOUT_S, Running, configure_upstream, run_front
from .faults import Upstream

BOUNDARY = "a-word"
UNSUPPORTED = "UnsupportedMediaTypeError"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
DELIMITER = f"--{BOUNDARY}\r\n".encode()
FILE = b'Content-Disposition: form-data; name="image"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
FIELD = b'Content-Disposition: form-data; name="top_k"\r\n\r\n3'
WINDOW = 1 << 18  # of front.js, whose next one must see a delimiter that this one cuts
EXPLAIN = "/explanations/digits"


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
    with run_front(folder, configure_upstream(folder, told), answer_timeout_s=TIMEOUT_S) as running:
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


def wait_for(found: Callable[[], bool]) -> None:
    assert wait_until(found, TIMEOUT_S)


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
}  # fmt: skip


@pytest.mark.parametrize("path", [PREDICT, EXPLAIN, "/v2/models/digits/infer"])
@pytest.mark.parametrize(("body", "kind", "status", "error"), REFUSED.values(), ids=REFUSED)
def test_a_form_that_costs_memory_is_refused_before_torchserve_sees_it(
    front: Running, told: Upstream, body: bytes, kind: str, status: int, error: str, path: str
) -> None:
    response = ask(front, body, kind, path)
    assert (response.status_code, response.json()["type"], told.requests) == (status, error, [])


PASSED = {
    "one file": form(FILE + b"pixels"),
    "as many as may be": form(FILE, *[FIELD] * 255),
    "larger than the memory of a body": form(FILE + bytes(5_000_000), FIELD),
    **{f"delimiter {cut} bytes into a window": form(FILE + bytes(WINDOW - len(DELIMITER + FILE) - 2 - cut), FIELD)
       for cut in (0, 1, 7)},
}  # fmt: skip


@pytest.mark.parametrize("body", PASSED.values(), ids=PASSED)
@pytest.mark.parametrize("kind", [FORM, f'multipart/form-data; charset=utf-8; boundary="{BOUNDARY}"'])
def test_a_form_of_pictures_passes_as_it_is(front: Running, told: Upstream, body: bytes, kind: str) -> None:
    assert ask(front, body, kind).status_code == 200
    [(_, headers, received)] = told.requests
    assert (headers["content-type"], received == body) == (kind, True)


TRIES = {
    "picture": (b"x", "image/jpeg", PREDICT, 2),
    "JSON": (b"{}", "application/json", PREDICT, 2),
    "form with a file": (form(FILE), FORM, PREDICT, 2),
    "form without a file": (form(FIELD), FORM, PREDICT, 1),
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
    keys = [front.add_client(f"{lane}-{number}") for number in range(3)]
    with ThreadPoolExecutor(3 * most + 1) as pool:
        sent = [pool.submit(ask, front, body, "image/png", key=keys[number % 3]) for number in range(3 * most)]
        wait_for(lambda: sum(answer.done() for answer in sent) == 2 * most)
        small = pool.submit(ask, front, b"x", "image/png")
        wait_for(lambda: len(held.requests) == most + 1)
        held.gate.set()
        assert small.result().status_code == 200
    answers = [answer.result() for answer in sent]
    statuses = [answer.status_code for answer in answers]
    assert (statuses.count(200), set(statuses) <= {200, 429, 503}) == (most, True)
    assert {answer.headers.get("Retry-After") for answer in answers} == {None, "1"}


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
