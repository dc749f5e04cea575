"""Neighbours among the pictures, the unit of work of every engine: a chunk becomes one shard."""

import gc
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from mar_tools.predicting.inputs import Item
from mar_tools.predicting.probing import gray_picture
from mar_tools.predicting.rows import OK, Answer, Origin, Row, make_row
from mar_tools.predicting.shards import KnownPaths, ResultFolder, digest_name, write_shard
from vision_serving.answers.responses import encode_response
from vision_serving.requests.payload import Payload

if TYPE_CHECKING:
    from vision_serving.handler import VisionHandler

NO_STATUS = 0  # `code` of a picture that could not be read
BATCHES_AHEAD = 2  # that are read while one is predicted
READERS = 4  # threads that read a batch where the model waits for one: of a store that is far away
SHARD_S = 5.0  # in which an engine means to predict a shard


@dataclass(frozen=True)
class Chunk:
    """Neighbours. position: of the first among all pictures, which names the shard."""

    position: int
    items: Sequence[Item]

    def halves(self) -> "tuple[Chunk, Chunk]":
        middle = len(self.items) // 2
        return Chunk(self.position, self.items[:middle]), Chunk(self.position + middle, self.items[middle:])


class Written(NamedTuple):
    """A shard under its temporary name. failure: of the first picture that failed; empty where none did."""

    rows: int
    failed: int
    failure: str
    seconds: float = 0.0


Tell = Callable[[Written], None]  # hears of every shard


class ChunkSource:
    """Hands out the pictures that no shard has yet, each once, to any thread."""

    def __init__(self, items: Iterator[Item], result: ResultFolder) -> None:
        self._items = enumerate(items)
        self._finished = result.known
        self._given = KnownPaths()
        self._lock = threading.Lock()
        self._returned: list[Chunk] = []
        self.is_empty = False
        self.passed = 0  # so many of the pictures were handed out or have their rows

    def take(self, count: int) -> Chunk | None:
        """Return the next neighbours, at most `count`; None at the end. Raises ConfigError of a bad input."""
        with self._lock:
            if self._returned:
                return self._returned.pop()
            position = 0
            taken: list[Item] = []
            for number, item in self._items:
                self.passed = number + 1
                digest = digest_name(item.name)
                if self._finished.has_digest(digest):
                    if taken:
                        break
                elif self._given.add_digest(digest):
                    position = position if taken else number
                    taken.append(item)
                    if len(taken) == count:
                        break
            else:
                self.is_empty = True
            return Chunk(position, taken) if taken else None

    def give_back(self, chunk: Chunk) -> None:
        """Take back what a worker that is gone had not predicted, for another one."""
        with self._lock:
            self._returned.append(chunk)

    @property
    def has_returned(self) -> bool:
        return bool(self._returned)


def read_or_tell(item: Item) -> bytes | Answer:
    """Return the bytes of a picture; of one that cannot be read, an error of the contract's form."""
    try:
        return item.read()
    except OSError as error:
        return {"code": NO_STATUS, "type": type(error).__name__, "message": error.strerror or str(error)}


def read_ahead(items: Sequence[Item], batch_size: int, pool: Executor) -> Iterator[list[tuple[Item, bytes | Answer]]]:
    """Yield batch after batch of pictures with their bytes, while the next ones are read."""
    rest, ahead = iter(items), deque[list["Future[list[tuple[Item, bytes | Answer]]]"]]()
    readers, number = 1, 0  # threads on local files cost more by taking turns than they gain
    while True:
        batch = list(islice(rest, batch_size))
        if batch:  # a task for each picture would cost as much as reading it
            share = -(-len(batch) // readers)
            parts = [batch[first : first + share] for first in range(0, len(batch), share)]
            ahead.append([pool.submit(_read_all, part) for part in parts])
        if len(ahead) > BATCHES_AHEAD or (ahead and not batch):
            number += 1
            if number > BATCHES_AHEAD and not all(part.done() for part in ahead[0]):  # the first ones had no time
                readers = READERS
            yield [read for part in ahead.popleft() for read in part.result()]
        elif not batch:
            return


def _read_all(items: Sequence[Item]) -> list[tuple[Item, bytes | Answer]]:
    return [(item, read_or_tell(item)) for item in items]


def predict_batch(handler: "VisionHandler", pictures: Sequence[bytes], options: Mapping[str, Any]) -> list[Answer]:
    """Return the answer or the error of each picture, as JSON has it. Never raises for one of them."""
    outcomes = handler.predict([Payload(images=(picture,), options=options) for picture in pictures])
    return [orjson.loads(encode_response(outcome).body) for outcome in outcomes]


def answer_items(
    handler: "VisionHandler",
    items: Sequence[Item],
    batch_size: int,
    options: Mapping[str, Any],
    origin: Origin,
    pool: Executor,
) -> list[Row]:
    """Return one row for each item, in order. pool: of threads that read."""
    rows: list[Row] = []
    for batch in read_ahead(items, batch_size, pool):
        pictures = [content for _, content in batch if isinstance(content, bytes)]
        answers = iter(predict_batch(handler, pictures, options) if pictures else [])
        rows += [
            make_row(item.name, next(answers) if isinstance(content, bytes) else content, origin)
            for item, content in batch
        ]
    return rows


class ChunkPredictor:
    """Predicts chunks with a loaded model, in whatever process, here or on another machine."""

    def __init__(self, handler: "VisionHandler", options: Mapping[str, Any], origin: Origin, task: str) -> None:
        self._handler, self._options, self._origin, self._task = handler, options, origin, task
        self._warm: set[int] = set()
        self._pool = ThreadPoolExecutor(READERS)

    def probe(self) -> Answer:
        """Return the answer to a gray picture."""
        [answer] = predict_batch(self._handler, [gray_picture()], self._options)
        return answer

    def predict(self, items: Sequence[Item], batch_size: int, path: Path) -> Written:
        """Write the shard of some pictures under its temporary name. Raises OSError."""
        if batch_size not in self._warm:  # some runtimes plan each size when they first see it
            self._handler.warm_up(batch_size)
            self._warm.add(batch_size)
        started = time.perf_counter()
        rows = answer_items(self._handler, items, batch_size, self._options, self._origin, self._pool)
        return write_rows(path, rows, self._task)._replace(seconds=time.perf_counter() - started)


def freeze_objects() -> None:
    """Keep what this process has loaded: its rows would otherwise make Python look through all of it again and again.

    All of PyTorch is some 230,000 objects. A look at them takes 140 ms, every 8,000 pictures.
    """
    gc.collect()
    gc.freeze()


def write_rows(path: Path, rows: Sequence[Row], task: str | None) -> Written:
    """Write a shard under its temporary name. Return what is in it. Raises OSError."""
    write_shard(path, rows, task)
    failed = [row for row in rows if row["status"] != OK]
    failure = f"{failed[0]['path']}: {failed[0]['error']['message']}" if failed else ""
    return Written(len(rows), len(failed), failure)
