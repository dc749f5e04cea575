"""The server of the rows of section A: a model that gives odd answers when it is asked to."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab.hostile import handler as hostile_handler
from lab.hostile.truth import AnsweringModel, open_answering_model
from lab.testbed.archives import SERVED, copy_handlers, export_served
from lab.testbed.traffic import Ask, Exchange, send_all
from lab.testbed.world import WORKERS, Running, world_properties
from mar_tools.building.packing import build_archive
from mar_tools.command_line import ROOT
from mar_tools.serving.temporary_server import temporary_server

CLIENT_TIMEOUT_S = 30.0  # what the server does not answer in time, it answers with a failure


@dataclass
class Subject(Running):
    """A running server, and what is right of its model."""

    truth: AnsweringModel

    def send(self, asks: list[Ask], connections: int) -> list[Exchange]:
        return send_all(self.url, asks, connections, self.headers, CLIENT_TIMEOUT_S)

    def send_one(self, ask: Ask) -> Exchange:
        return self.send([ask], 1)[0]

    def worker_pids(self) -> list[int]:
        described = self.server.client.describe(self.truth.model)
        return sorted(int(worker["pid"]) for entry in described for worker in entry["workers"])


def build_hostile_archive(folder: Path) -> Path:
    """Return the model of all rows, with `hostile_handler.py` for its entry file."""
    entry_file = Path(hostile_handler.__file__)
    return build_archive(export_served(folder), copy_handlers(folder, entry_file), folder, entry_file.name)


@contextmanager
def open_subject(archive: Path) -> Iterator[Subject]:
    """Raises ServerError where it does not come up."""
    with (
        open_answering_model(archive, SERVED, WORKERS) as truth,
        temporary_server([archive], world_properties({}), ROOT / "log4j2.xml") as server,
    ):
        yield Subject(server, truth)
