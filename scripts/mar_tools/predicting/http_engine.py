"""Chunks -> shards through a server: so many requests at a time, from whose pictures the server makes its batches."""

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from mar_tools.predicting.chunks import NO_STATUS, SHARD_S, ChunkSource, Tell, read_or_tell, write_rows
from mar_tools.predicting.inputs import Item
from mar_tools.predicting.predictors import Send, read_answer_of
from mar_tools.predicting.probing import gray_picture
from mar_tools.predicting.rows import Answer, Origin, Row, make_row, task_of
from mar_tools.predicting.shards import ResultFolder
from mar_tools.serving.torchserve_api import ServerError
from vision_client.errors import ServerTimeoutError
from vision_serving.errors import ConfigError

MOST_PICTURES = 5000
BUSY_S = 60.0  # for which a server may refuse with one of BUSY before a picture's row says so
PAUSE_S = 1.0
BUSY, REFUSED = (429, 503), (401, 403)  # 429: the front says it of more requests than a client may send


@dataclass(frozen=True)
class HttpEngine:
    """Predicts through a server with the model's own batches."""

    send: Send
    model: str
    options: Mapping[str, str]
    concurrency: int

    def probe(self) -> tuple[Answer, str | None]:
        """Return the answer to a gray picture, and the model's version. Raises ServerError where none can answer."""
        response = self.send(self.model, gray_picture(), self.options)
        answer = read_answer_of(response)
        if response.status_code in REFUSED or answer.get("type") == "InvalidKeyException":
            raise ServerError(f"{self.model}: the server refuses: {answer.get('message')}")
        return answer, response.headers.get("X-Model-Version")

    def predict(self, source: ChunkSource, result: ResultFolder, tell: Tell, task: str | None) -> None:
        """Write shards until the source is empty. Raises ServerError without a server, or OSError of the disk."""
        count = self.concurrency
        pool = ThreadPoolExecutor(self.concurrency, "predict")
        try:
            while chunk := source.take(count):
                started = time.monotonic()
                rows = list(pool.map(self._predict_item, chunk.items))
                temporary = result.temporary(chunk.position)
                written = write_rows(temporary, rows, task)
                result.commit(temporary, chunk.position, written.rows, written.failed)
                tell(written)
                rate = len(rows) / (time.monotonic() - started)
                count = max(self.concurrency, min(MOST_PICTURES, 4 * count, round(SHARD_S * rate)))
        finally:
            pool.shutdown(cancel_futures=True)

    def _predict_item(self, item: Item) -> Row:
        content = read_or_tell(item)
        if not isinstance(content, bytes):
            return make_row(item.name, content, Origin(self.model, None, None))
        deadline = time.monotonic() + BUSY_S
        try:
            while (response := self.send(self.model, content, self.options)).status_code in BUSY:
                if time.monotonic() > deadline:
                    break
                time.sleep(PAUSE_S)
        except ServerError as error:
            if not isinstance(error.__cause__, ServerTimeoutError):
                raise
            late = {"code": NO_STATUS, "type": "ServerTimeoutError", "message": str(error)}
            return make_row(item.name, late, Origin(self.model, None, None))
        version = response.headers.get("X-Model-Version")
        return make_row(item.name, read_answer_of(response), Origin(self.model, version, None))


def find_task(answer: Answer) -> str:
    """Return the task that an answer shows. Raises ConfigError where it shows none, and the columns are unknown."""
    task = task_of(answer)
    if task is None:
        raise ConfigError(
            f"--format parquet: the columns are those of the model's task, and it answers a gray JPEG with "
            f"{answer.get('code')} {answer.get('type')}: {answer.get('message')}; give --format json-lines"
        )
    return task
