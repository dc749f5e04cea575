"""Bodies reach a worker as TorchServe's own code reads them, byte for byte."""

import socket
import sys
import threading
from collections.abc import Iterator
from struct import pack

import pytest
import ts.protocol.otf_message_handler as otf

from vision_serving.worker import receiving


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    with near, far:
        yield near, far


def send_fields(far: socket.socket, *fields: bytes) -> None:
    """Send as the frontend does, with a small piece first."""
    for field in fields:
        data = pack("!i", len(field)) + field
        far.sendall(data[:5])
        far.sendall(data[5:])


@pytest.mark.parametrize("size", [0, 1, 70_000, 3_000_000])
def test_a_body_is_what_was_sent(
    sockets: tuple[socket.socket, socket.socket], size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    near, far = sockets
    monkeypatch.setattr(otf, receiving.READER, getattr(otf, receiving.READER))
    receiving.receive_at_once()
    assert getattr(otf, receiving.READER) is receiving.receive
    body = (bytes(range(256)) * (size // 256 + 1))[:size]
    sender = threading.Thread(target=send_fields, args=(far, b"data", b"image/png", body))
    sender.start()
    received = otf._retrieve_input_data(near)
    sender.join()
    assert received == {"name": "data", "contentType": "image/png", "value": body}
    assert isinstance(received["value"], bytearray), "as TorchServe gives it"


def test_a_worker_ends_when_the_frontend_goes(sockets: tuple[socket.socket, socket.socket]) -> None:
    near, far = sockets
    far.sendall(b"half")
    far.close()
    with pytest.raises(SystemExit) as ended:
        receiving.receive(near, 8)
    assert ended.value.code == 0


def test_another_release_of_torchserve_serves_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(otf, receiving.READER)
    receiving.receive_at_once()
    assert not hasattr(otf, receiving.READER)
    assert "is not there" in caplog.text


def test_where_torchserve_is_not_nothing_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delitem(sys.modules, receiving.SOCKET_CODE)
    receiving.receive_at_once()
    assert not caplog.text
