"""Retries, kept connections, time-outs and tokens, over real sockets."""

import itertools
import json
import pickle
import socket
import threading
from pathlib import Path

import pytest
from client_fakes import REFUSED, SEVEN, accept_only, client_of
from http_fakes import Answer, Request

from vision_client import (
    AuthorizationError,
    Classification,
    Client,
    ConnectionLostError,
    PredictionError,
    Result,
    ServerBusyError,
    ServerTimeoutError,
)

BUSY = Answer(503, b'{"code": 503, "type": "ServiceUnavailableException", "message": "the queue is full"}')
BROKEN = Answer(0)


class Answers:
    """One after the other, the last one for ever."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = itertools.chain(answers, itertools.repeat(answers[-1]))
        self.bodies: list[bytes] = []

    def __call__(self, request: Request) -> Answer:
        self.bodies.append(request.body)
        return next(self._answers)


def all_are_sevens(answers: list[Result]) -> bool:
    return all(isinstance(answer, Classification) and answer.top.label == "7" for answer in answers)


@pytest.mark.parametrize("first", [BUSY, BROKEN], ids=["503", "a connection that breaks"])
def test_what_passes_is_asked_again_with_the_whole_image(first: Answer) -> None:
    answers = Answers(first, SEVEN)
    with client_of(answers) as client:
        assert isinstance(client.predict("model", b"image"), Classification)
    assert answers.bodies == [b"image", b"image"]


def test_a_server_that_stays_busy_says_what_to_do() -> None:
    answers = Answers(BUSY)
    said = r"503 ServiceUnavailableException: the queue is full; .*concurrency"
    with client_of(answers, retries=1) as client, pytest.raises(ServerBusyError, match=said):
        client.predict("model", b"image")
    assert len(answers.bodies) == 2


def test_an_image_that_breaks_connections_is_sent_twice_at_most() -> None:
    answers = Answers(BROKEN)
    with client_of(answers, retries=4) as client, pytest.raises(ConnectionLostError, match="without an answer"):
        client.predict("model", b"image")
    assert len(answers.bodies) == 2


@pytest.mark.parametrize("status", [400, 404, 413, 415, 422, 429, 500, 502, 507])
def test_other_errors_are_final(status: int) -> None:
    answers = Answers(Answer(status, headers={"Retry-After": "0"}))
    with client_of(answers) as client, pytest.raises(PredictionError):
        client.predict("model", b"image")
    assert len(answers.bodies) == 1


def test_a_server_that_hangs_on_an_image_is_asked_once_and_answers_the_next() -> None:
    release = threading.Event()
    bodies = []

    def answer(request: Request) -> Answer:
        bodies.append(request.body)
        if request.body == b"hangs":
            release.wait(20)
        return SEVEN

    with client_of(answer, timeout_s=0.5, concurrency=1) as client:
        first, second = client.predict("model", [b"hangs", b"other"])
        release.set()
    assert isinstance(first, ServerTimeoutError)
    assert "did not answer within 0.5 s" in str(first)
    assert isinstance(second, Classification)
    assert bodies == [b"hangs", b"other"]


def test_a_server_that_is_about_to_start_is_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    answers: list[Result] = []
    with Client(f"http://127.0.0.1:{port}", retries=6) as client:
        thread = threading.Thread(target=lambda: answers.append(client.predict("model", b"image")))
        thread.start()
        with socket.create_server(("127.0.0.1", port)) as listener:
            listener.settimeout(30)
            connection, _ = listener.accept()
            with connection:
                connection.recv(1 << 16)
                head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(SEVEN.body)}\r\nConnection: close\r\n\r\n"
                connection.sendall(head.encode() + SEVEN.body)
                thread.join()
    assert all_are_sevens(answers)


def test_connections_are_kept() -> None:
    connections = set()

    def answer(request: Request) -> Answer:
        connections.add(threading.current_thread().name)  # the server has a thread for each
        return SEVEN

    with client_of(answer, concurrency=2) as client:
        assert all_are_sevens(client.predict("model", [b"image"] * 20))
        assert all_are_sevens(client.predict("model", [b"image"] * 20))
    assert len(connections) <= 2


def test_a_key_file_is_read_again_when_its_key_is_refused(tmp_path: Path) -> None:
    key_file = tmp_path / "key_file.json"
    write_key_file(key_file, "old")
    with client_of(accept_only("new"), str(key_file)) as client:
        with pytest.raises(AuthorizationError, match="wrong or has expired"):
            client.predict("model", b"image")
        write_key_file(key_file, "new")
        assert all_are_sevens(client.predict("model", [b"image"] * 20))


def test_a_function_gives_a_new_token_once_for_all_threads() -> None:
    tokens = iter(["old", "new", "spare"])
    given = []

    def next_token() -> str:
        given.append(next(tokens))
        return given[-1]

    with client_of(accept_only("new"), next_token, concurrency=8) as client:
        assert all_are_sevens(client.predict("model", [b"image"] * 40))
    assert given == ["old", "new"]


def test_a_fixed_token_that_is_refused_is_not_sent_again() -> None:
    answers = Answers(REFUSED)
    said = r"400 InvalidKeyException: the token is wrong or has expired; .*renew"
    with client_of(answers, "wrong") as client, pytest.raises(AuthorizationError, match=said):
        client.predict("model", b"image")
    assert len(answers.bodies) == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "No such file"), ("", "no inference key"), ("[]", "no inference key"), ("{}", "no inference key")],
    ids=["missing", "empty", "list", "no key"],
)
def test_a_key_file_without_a_key_is_said(tmp_path: Path, content: str | None, said: str) -> None:
    key_file = tmp_path / "key_file.json"
    if content is not None:
        key_file.write_text(content)
    with Client("http://127.0.0.1:1", key_file) as client, pytest.raises(AuthorizationError, match=said) as caught:
        client.predict("model", b"image")
    assert str(key_file) in str(caught.value)


def test_a_netrc_does_not_replace_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    with client_of(accept_only("mine"), "mine") as client:
        client.session.trust_env = True
        assert isinstance(client.predict("model", b"image"), Classification)


def test_a_proxy_of_the_environment_is_not_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with client_of(lambda request: SEVEN, retries=0) as client:
        assert isinstance(client.predict("model", b"image"), Classification)


def test_an_error_crosses_processes() -> None:
    error = pickle.loads(pickle.dumps(ServerBusyError(503, "ServiceUnavailableException", "full")))
    assert isinstance(error, ServerBusyError)
    assert (error.code, error.type, error.message) == (503, "ServiceUnavailableException", "full")


def write_key_file(path: Path, key: str) -> None:
    path.write_text(json.dumps({"management": {"key": "m"}, "inference": {"key": key}, "API": {"key": "a"}}))


@pytest.mark.parametrize("message", [b"", b', "message": null'], ids=["no message", "null"])
def test_a_refused_token_is_known_by_its_type_alone(message: bytes) -> None:
    refused = Answer(400, b'{"code": 400, "type": "InvalidKeyException"' + message + b"}")
    tokens = iter(["old", "new"])
    with client_of(
        lambda request: SEVEN if request.headers["Authorization"] == "Bearer new" else refused, lambda: next(tokens)
    ) as client:
        assert isinstance(client.predict("model", b"image"), Classification)
