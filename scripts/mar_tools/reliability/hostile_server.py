"""The server of the rows of section A: the digits classifier, two workers, batches of four, a delay of 20 ms."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mar_tools.checkpoints import load_checkpoint
from mar_tools.command_line import HANDLERS, ROOT
from mar_tools.exports import export_model
from mar_tools.packing import build_archive
from mar_tools.properties_file import format_models, with_values
from mar_tools.recipes import read_recipe
from mar_tools.reliability import hostile_handler
from mar_tools.reliability.hostile_truth import Truth, open_truth
from mar_tools.reliability.traffic import Ask, Exchange, send_all
from mar_tools.server import Server
from mar_tools.temporary_server import temporary_server
from mar_tools.verification import verify_export

RECIPE = ROOT / "examples" / "digits_classification" / "recipe.yaml"
MODEL, VERSION = "digits", "1.0"
WORKERS, BATCH_SIZE, BATCH_DELAY_MS = 2, 4, 20
RESPONSE_TIMEOUT_S = 5
CLIENT_TIMEOUT_S = 30.0  # what the server does not answer in time, it answers with a failure


@dataclass(frozen=True)
class Subject:
    """A running server, and what is right of its MODEL."""

    server: Server
    truth: Truth

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.ports()['inference_address']}"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.server.client.token('inference')}"}

    def send(self, asks: list[Ask], connections: int) -> list[Exchange]:
        return send_all(self.url, asks, connections, self.headers, CLIENT_TIMEOUT_S)

    def send_one(self, ask: Ask) -> Exchange:
        return self.send([ask], 1)[0]

    def worker_pids(self) -> list[int]:
        described = self.server.client.describe(self.truth.model)
        return sorted(int(worker["pid"]) for entry in described for worker in entry["workers"])


def build_hostile_archive(folder: Path) -> Path:
    """The classifier in eager fp32, which every CPU runs, with `hostile_handler.py` for its entry file."""
    recipe = read_recipe(RECIPE, backend="eager", precision="fp32")
    recipe = recipe.model_copy(update={"response_timeout_s": RESPONSE_TIMEOUT_S})
    export = export_model(recipe, load_checkpoint(recipe), "eager", "fp32", folder / "exports")
    verify_export(export)
    handlers = folder / "handlers"
    shutil.copytree(HANDLERS, handlers, ignore=shutil.ignore_patterns("__pycache__"))
    entry_file = Path(hostile_handler.__file__)
    shutil.copy(entry_file, handlers)
    return build_archive(export, handlers, folder, entry_file.name)


@contextmanager
def open_subject(archive: Path) -> Iterator[Subject]:
    """Raises ServerError where it does not come up."""
    model = {
        "defaultVersion": True, "marName": archive.name, "minWorkers": WORKERS, "maxWorkers": WORKERS,
        "batchSize": BATCH_SIZE, "maxBatchDelay": BATCH_DELAY_MS,
    }  # fmt: skip
    values = {"load_models": archive.name, "models": format_models({MODEL: {VERSION: model}})}
    properties = with_values((ROOT / "config.properties").read_text(encoding="utf-8"), values)
    with (
        open_truth(archive, MODEL, WORKERS) as truth,
        temporary_server([archive], properties, ROOT / "log4j2.xml") as server,
    ):
        yield Subject(server, truth)
