"""Predict what is listed into a result that nothing can lose: a Parquet folder, or a file merged from shards."""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mar_tools.archives.archive import extract_archive, open_archive
from mar_tools.images import show_line
from mar_tools.predicting.chunks import ChunkSource, Tell, Written
from mar_tools.predicting.formats import NewWriter
from mar_tools.predicting.http_engine import HttpEngine, find_task
from mar_tools.predicting.inputs import list_items
from mar_tools.predicting.local_engine import LocalJob, LocalWorker
from mar_tools.predicting.merging import merge_shards
from mar_tools.predicting.predictors import Send
from mar_tools.predicting.progress import Counter, show_rate
from mar_tools.predicting.rows import SCHEMA_VERSION, Answer, Origin
from mar_tools.predicting.shards import PARQUET, ResultFolder, open_folder
from mar_tools.predicting.trial import Engine, list_plans
from mar_tools.terminal import print_line
from vision_serving.config import HandlerConfig, read_handler_config

PARTS = ".parts"  # beside a file: its shards, until they are merged
COUNT_PATIENCE_S = 0.3  # few pictures are counted by then, and are predicted without a long trial

Check = Callable[[Answer], None]
Predict = Callable[[ChunkSource, ResultFolder, Tell], None]


@dataclass(frozen=True)
class Recording:
    """What is predicted, and where the rows go. check: of an answer to a gray picture; raises where none would fit."""

    inputs: Sequence[str]
    column: str | None
    options: Mapping[str, str]
    output: Path
    form: str
    resume: bool
    check: Check

    @property
    def shards(self) -> Path:
        return self.output if self.form == PARQUET else self.output.with_name(self.output.name + PARTS)


@dataclass(frozen=True)
class Recorded:
    """What a result holds at the end. failure: of the first picture that failed in this run."""

    result: ResultFolder
    failure: str


@contextmanager
def record(recording: Recording, model: Mapping[str, Any], predict: Predict, total: Counter) -> Iterator[Recorded]:
    """Predict what has no row yet. Give what is recorded then, while no other process can write there.

    model: what a result is of, which `--resume` compares. Raises ConfigError, and what the engine raises.
    """
    run = {"schema_version": SCHEMA_VERSION, "form": recording.form, "options": dict(recording.options), **model}
    failures: list[str] = []
    with open_folder(recording.shards, recording.form, run, recording.resume) as result:
        items = list_items(recording.inputs, recording.column)
        try:
            with show_rate("predicting", result.rows, lambda: total.total) as show:

                def tell(written: Written) -> None:
                    show(written)
                    failures.extend([written.failure] if written.failure else [])

                predict(ChunkSource(items, result), result, tell)
        except BaseException:
            if result.rows:
                print_line(f"{result.rows} rows are kept in {show_line(recording.shards)}; --resume goes on")
            raise
        yield Recorded(result, failures[0] if failures else "")


def count_items(recording: Recording) -> Counter:
    counter = Counter(list_items(recording.inputs, recording.column))
    counter.wait(COUNT_PATIENCE_S)
    return counter


@contextmanager
def record_in_process(
    recording: Recording, archive: Path, processes: int | None, batch_size: int | None
) -> Iterator[Recorded]:
    """Predict with an archive, in processes of this machine. Raises ConfigError, LocalEngineError or OSError."""
    with read_archive(archive) as (folder, origin, config), tempfile.TemporaryDirectory() as logs:
        counter, task = count_items(recording), config.task
        engine = Engine(
            list_plans(processes, config.device_type == "cuda", counter.total),
            partial(LocalWorker, LocalJob(folder, origin, task, recording.options), Path(logs)),
            origin,
            task,
            batch_size,
            recording.check,
            lambda: counter.total,
        )
        with record(recording, {"task": task, **origin._asdict()}, engine.predict, counter) as recorded:
            yield recorded


@contextmanager
def read_archive(archive: Path) -> Iterator[tuple[Path, Origin, HandlerConfig]]:
    """Extract an archive. Give the folder, what rows say of it, and its settings. Raises ConfigError."""
    with tempfile.TemporaryDirectory(prefix="vision-serving-") as work:
        folder = Path(work, "archive")
        origin = Origin(*extract_archive(archive, folder), open_archive(archive).sha256)
        yield folder, origin, read_handler_config(folder / "model-config.yaml")


@contextmanager
def record_over_http(recording: Recording, send: Send, model: str, concurrency: int) -> Iterator[Recorded]:
    """Predict through a server. Raises ConfigError, ServerError or OSError."""
    engine = HttpEngine(send, model, recording.options, concurrency)
    answer, version = engine.probe()
    recording.check(answer)
    task = find_task(answer) if recording.form == PARQUET else None

    def predict(source: ChunkSource, result: ResultFolder, tell: Tell) -> None:
        engine.predict(source, result, tell, task)

    described = {"task": task, "model": model, "version": version, "archive_sha256": None}
    with record(recording, described, predict, count_items(recording)) as recorded:
        yield recorded


def merge_and_remove(
    recorded: Recorded, recording: Recording, new_writer: NewWriter, count_rows: Callable[[Answer], int], whole: bool
) -> int:
    """Merge the shards into the output, and remove them. Return the rows in it."""
    rows = merge_shards(recorded.result, recording.output, new_writer, count_rows, whole)
    shutil.rmtree(recording.shards)
    return rows
