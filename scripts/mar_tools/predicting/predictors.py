"""Pictures -> their answers, from a running server or in process from an archive; both speak the HTTP contract."""

import tempfile
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import orjson
import requests
from pydantic import TypeAdapter

from mar_tools.archives.archive import extract_archive
from mar_tools.archives.checks import BUILD_AGAIN
from mar_tools.predicting.chunks import predict_batch, read_or_tell
from mar_tools.predicting.inputs import Item
from mar_tools.predicting.rows import Answer
from vision_serving.errors import ConfigError, InvalidOptionError
from vision_serving.predictions import Prediction

Predict = Callable[[bytes], Answer]
Send = Callable[[str, bytes, Mapping[str, str]], requests.Response]  # the model, an encoded picture, options

PREDICTION: TypeAdapter[Prediction] = TypeAdapter(Prediction)


def predict_over_http(send: Send, model: str, options: Mapping[str, str]) -> Predict:
    """Predict over HTTP: answers are the server's JSON bodies, errors too. Raises what `send` raises."""

    def predict(encoded: bytes) -> Answer:
        return read_answer_of(send(model, encoded, options))

    return predict


def read_answer_of(response: requests.Response) -> Answer:
    """Return the JSON of a response, an error's too; of what is no JSON object, as of a proxy, an error."""
    try:
        answer = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        answer = None
    if isinstance(answer, dict) and (response.ok or {"code", "type", "message"} <= answer.keys()):
        return answer
    return {"code": response.status_code, "type": "ServerError", "message": response.reason}


@contextmanager
def predict_in_process(archive: Path, options: Mapping[str, str]) -> Iterator[Predict]:
    """Load the archive's own configuration and artifact, with this checkout's handlers. Raises ConfigError."""
    from mar_tools.verification.observations import load_handler

    with tempfile.TemporaryDirectory(prefix="vision-serving-") as folder:
        extract_archive(archive, Path(folder))
        try:
            handler = load_handler(Path(folder))
        except ConfigError as error:
            raise ConfigError(f"{archive}: {error}; {BUILD_AGAIN}") from error

        yield lambda encoded: predict_batch(handler, [encoded], options)[0]


def predict_items(predict: Predict, items: Iterable[Item], concurrency: int) -> Iterator[tuple[Item, Answer]]:
    """Yield each item with its answer, in order, of so many requests at a time. Raises what `predict` raises."""
    pool = ThreadPoolExecutor(concurrency, "predict")
    waiting: deque[tuple[Item, Future[Answer]]] = deque()
    try:
        for item in items:
            waiting.append((item, pool.submit(predict_item, predict, item)))
            if len(waiting) > 2 * concurrency:  # enough to go on with while the first of them takes long
                first, answer = waiting.popleft()
                yield first, answer.result()
        for item, answer in waiting:
            yield item, answer.result()
    finally:
        pool.shutdown(cancel_futures=True)


def predict_item(predict: Predict, item: Item) -> Answer:
    """Predict one picture; one that cannot be read has an error of the contract's form as its answer.

    Raises InvalidOptionError, which every other picture would have too.
    """
    content = read_or_tell(item)
    if not isinstance(content, bytes):
        return content
    answer = predict(content)
    if answer.get("type") == InvalidOptionError.__name__:
        raise InvalidOptionError(answer["message"])
    return answer


def list_ends(file: Path | str) -> list[str]:
    """Return the ends of a path, from the bare name to all of it."""
    parts = Path(file).parts
    return [str(Path(*parts[start:])) for start in reversed(range(len(parts)))]


def tell_apart(files: Iterable[Path | str]) -> dict[Path | str, str]:
    """Return the shortest end of each path that no other file has."""
    ends = {file: list_ends(file) for file in files}
    uses = Counter(end for several in ends.values() for end in several)
    return {file: next((end for end in several if uses[end] == 1), str(file)) for file, several in ends.items()}


def read_prediction(answer: Answer) -> Prediction:
    """Return the prediction that a good answer is the JSON of, its boxes as corners."""
    return PREDICTION.validate_python(answer)
