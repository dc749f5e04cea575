"""A client of a small real server of this process."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from http_fakes import Answer, Request, serve_requests

from vision_client import Client

SEVEN = Answer(200, b'{"classes": [{"class_id": 7, "label": "7", "score": 0.9}]}', {"Content-Type": "application/json"})
REFUSED = Answer(400, b'{"code": 400, "type": "InvalidKeyException", "message": "Token Authorization failed."}')


@contextmanager
def client_of(answer: Callable[[Request], Answer], token: Any = None, **settings: Any) -> Iterator[Client]:
    with serve_requests(answer) as url, Client(url, token, **settings) as client:
        yield client


class Recorder:
    """Answers as told, and keeps what came."""

    def __init__(self, answer: Callable[[Request], Answer] = lambda request: SEVEN) -> None:
        self.requests: list[Request] = []
        self._answer = answer

    def __call__(self, request: Request) -> Answer:
        self.requests.append(request)
        return self._answer(request)


def accept_only(token: str) -> Callable[[Request], Answer]:
    """Answers to one token alone, as TorchServe does."""
    return lambda request: SEVEN if request.headers.get("Authorization") == f"Bearer {token}" else REFUSED
