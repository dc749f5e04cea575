"""A worker of TorchServe without its frontend: the messages of its protocol, and its real process over its socket."""

import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ts

TORCHSERVE = Path(ts.__file__).parent
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Request:
    """parts: (name, content type, value), as the frontend hands them over."""

    parts: Sequence[tuple[str, str, bytes]]
    headers: Mapping[str, str] = field(default_factory=dict)


def raw(body: bytes, **headers: str) -> Request:
    return Request([("body", "", body)], headers)


@dataclass(frozen=True)
class Answer:
    request_id: str
    content_type: str
    status: int
    phrase: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Reply:
    """To a whole batch. code: 200, or TorchServe answers all of its requests with it."""

    code: int
    message: str
    answers: Sequence[Answer]


class ReplyReader:
    """Reads a reply with `receive(length)`."""

    def __init__(self, receive: Any) -> None:
        self._receive = receive

    def integer(self) -> int:
        (value,) = struct.unpack("!i", self._receive(4))
        return int(value)

    def block(self) -> bytes:
        return bytes(self._receive(self.integer()))

    def text(self) -> str:
        return self.block().decode()

    def read(self) -> Reply:
        code, message, answers = self.integer(), self.text(), []
        while (length := self.integer()) != -1:
            request_id = bytes(self._receive(length)).decode()
            kind, status, phrase = self.text(), self.integer(), self.text()
            headers = {self.text(): self.text() for _ in range(self.integer())}
            answers.append(Answer(request_id, kind, status, phrase, headers, self.block()))
        return Reply(code, message, answers)


def read_reply(message: bytes) -> Reply:
    position = 0

    def receive(length: int) -> bytes:
        nonlocal position
        position += length
        assert position <= len(message), "the reply is cut off"
        return message[position - length : position]

    reply = ReplyReader(receive).read()
    assert position == len(message), "something follows the reply"
    return reply


def block(value: bytes) -> bytes:
    return struct.pack("!i", len(value)) + value


def batch_message(requests: Sequence[Request]) -> bytes:
    end, message = struct.pack("!i", -1), b"I"
    for index, request in enumerate(requests):
        message += block(f"request-{index}".encode())
        message += b"".join(block(name.encode()) + block(value.encode()) for name, value in request.headers.items())
        message += end
        message += b"".join(block(n.encode()) + block(kind.encode()) + block(value) for n, kind, value in request.parts)
        message += end
    return message + end


def load_message(folder: Path, handler: str, batch_size: int) -> bytes:
    named = block(b"colours") + block(str(folder).encode()) + struct.pack("!i", batch_size) + block(handler.encode())
    return b"L" + named + struct.pack("!i", -1) + block(b"") + struct.pack("!?", True)


class Worker:
    """`ts/model_service_worker.py` in its own process."""

    def __init__(self, process: "subprocess.Popen[bytes]", connection: socket.socket, log: Path) -> None:
        self.process = process
        self._connection = connection
        self._log = log

    def load(self, folder: Path, handler: str, batch_size: int = 4) -> Reply:
        return self._ask(load_message(folder, handler, batch_size))

    def predict(self, *requests: Request) -> Reply:
        return self._ask(batch_message(requests))

    def log(self) -> str:
        return self._log.read_text()

    def is_replaced(self) -> bool:
        """Whether it ended, so that TorchServe would start another."""
        return self.process.wait(PATIENCE_S) is not None

    def _ask(self, message: bytes) -> Reply:
        """Raises ConnectionError when the worker ends instead."""
        self._connection.sendall(message)
        return ReplyReader(self._receive).read()

    def _receive(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            data += (found := self._connection.recv(length - len(data)))
            if not found:
                raise ConnectionError("the worker ended")
        return data


@contextmanager
def start_worker(folder: Path, import_paths: Sequence[Path]) -> Iterator[Worker]:
    """A worker that has loaded nothing yet. folder: for its socket and its log."""
    folder.mkdir(parents=True, exist_ok=True)
    address, log = folder / "worker.9000", folder / "worker.log"
    command = [sys.executable, str(TORCHSERVE / "model_service_worker.py"), "--sock-type", "unix"]
    command += ["--sock-name", str(address), "--metrics-config", str(TORCHSERVE / "configs" / "metrics.yaml")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, import_paths))}
    with log.open("wb") as output, socket.socket(socket.AF_UNIX) as connection:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment, cwd=folder)
        try:
            _connect(connection, address, process)
            connection.settimeout(PATIENCE_S)
            yield Worker(process, connection, log)
        finally:
            process.kill()
            process.wait()


def _connect(connection: socket.socket, address: Path, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            connection.connect(str(address))
        except (FileNotFoundError, ConnectionRefusedError):
            time.sleep(0.05)
        else:
            return
    raise TimeoutError("the worker does not listen")
