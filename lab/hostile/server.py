"""The server of section A, whose model gives odd answers when it is asked to, and what is right of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson

from lab.hostile import handler as hostile_handler
from lab.testbed.archives import copy_handlers, export_served
from lab.testbed.traffic import Ask, Check, Exchange, send_all
from lab.testbed.world import WORKERS, Running, check_prediction, good_asks, world_properties
from mar_tools.building.packing import build_archive
from mar_tools.command_line import ROOT
from mar_tools.load_testing.answers import Expected, open_export, read_found
from mar_tools.serving.temporary_server import temporary_server
from mar_tools.verification.observations import load_handler
from vision_serving.answers.responses import encode_response
from vision_serving.cores import plan_threads, usable_cores
from vision_serving.handler import VisionHandler
from vision_serving.requests.payload import Payload

CLIENT_TIMEOUT_S = 30.0  # what the server does not answer in time, it answers with a failure
PICTURES = 40


@dataclass(frozen=True)
class AnsweringModel:
    """handler: of the export that is served."""

    handler: VisionHandler

    def expect(self, picture: bytes) -> tuple[int, Check]:
        """Return the status of a raw body, never a 5xx, and what is wrong with an answer."""
        response = encode_response(self.handler.predict([Payload(images=(picture,))])[0])
        if response.status == 200:
            return 200, check_prediction(Expected(tuple(read_found(orjson.loads(response.body)))))

        def check(body: bytes) -> str:
            return "" if body == response.body else f"answered {body[:200]!r} instead of {response.body[:200]!r}"

        return (response.status if response.status < 500 else 400), check


@contextmanager
def open_answering_model(export: Path) -> Iterator[AnsweringModel]:
    """Open an export or an archive, with the threads that a worker has. Raises ConfigError."""
    with open_export(export) as folder:
        yield AnsweringModel(load_handler(folder, plan_threads(usable_cores(), WORKERS)))


@dataclass
class Subject(Running):
    """A running server, what is right of its model, and good requests."""

    truth: AnsweringModel
    good: tuple[Ask, ...]

    def send(self, asks: list[Ask], connections: int) -> list[Exchange]:
        return send_all(self.url, asks, connections, self.headers, CLIENT_TIMEOUT_S)

    def send_one(self, ask: Ask) -> Exchange:
        return self.send([ask], 1)[0]


def build_hostile_archive(folder: Path) -> Path:
    """Return the model of all rows, with `hostile_handler.py` for its entry file."""
    entry_file = Path(hostile_handler.__file__)
    return build_archive(export_served(folder), copy_handlers(folder, entry_file), folder, entry_file.name)


@contextmanager
def open_subject(archive: Path) -> Iterator[Subject]:
    """Raises ServerError where it does not come up."""
    good = good_asks(archive, count=PICTURES)
    with (
        open_answering_model(archive) as truth,
        temporary_server([archive], world_properties({}), ROOT / "log4j2.xml") as server,
    ):
        yield Subject(server, truth, good)
