"""Image files -> their answers, from a running server or in process from an archive; both speak the HTTP contract."""

import tempfile
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import requests
from pydantic import TypeAdapter

from mar_tools.archives.archive import extract_archive
from mar_tools.images import read_image
from mar_tools.serving.torchserve_api import ServerError, TorchServeClient, tell_refusal
from vision_serving.answers.responses import encode_response
from vision_serving.errors import InvalidOptionError
from vision_serving.predictions import Prediction
from vision_serving.requests.payload import Payload

Answer = dict[str, Any]
Predict = Callable[[bytes], Answer]

NO_STATUS = 0  # `code` of a file that was never sent
PREDICTION: TypeAdapter[Prediction] = TypeAdapter(Prediction)


def predict_over_http(client: TorchServeClient, model: str, options: Mapping[str, str]) -> Predict:
    """Predict over HTTP: answers are the server's JSON bodies, errors too. Raises ServerError without such a model."""

    def predict(encoded: bytes) -> Answer:
        response = client.predict(model, encoded, options)
        if response.status_code == requests.codes.not_found:
            raise ServerError(f"{tell_refusal(response)}; the server has {client.list_models()}")
        try:
            answer: Answer = orjson.loads(response.content)
        except orjson.JSONDecodeError:
            answer = {"code": response.status_code, "type": "ServerError", "message": response.reason}
        return answer

    return predict


@contextmanager
def predict_in_process(archive: Path, options: Mapping[str, str]) -> Iterator[Predict]:
    """Load the archive's own configuration and artifact, with this checkout's handlers. Raises ConfigError."""
    from mar_tools.verification.observations import load_handler

    with tempfile.TemporaryDirectory(prefix="vision-serving-") as folder:
        extract_archive(archive, Path(folder))
        handler = load_handler(Path(folder))

        def predict(encoded: bytes) -> Answer:
            outcome = handler.predict([Payload(images=(encoded,), options=dict(options))])[0]
            answer: Answer = orjson.loads(encode_response(outcome).body)
            return answer

        yield predict


def predict_files(predict: Predict, files: Sequence[Path], concurrency: int) -> Iterator[tuple[Path, Answer]]:
    """Yield each file with its answer, in order, of so many requests at a time. Raises what `predict` raises."""
    pool = ThreadPoolExecutor(concurrency, "predict")
    waiting: deque[tuple[Path, Future[Answer]]] = deque()
    try:
        for file in files:
            waiting.append((file, pool.submit(predict_file, predict, file)))
            if len(waiting) > 2 * concurrency:  # enough to go on with while the first of them takes long
                first, answer = waiting.popleft()
                yield first, answer.result()
        for file, answer in waiting:
            yield file, answer.result()
    finally:
        pool.shutdown(cancel_futures=True)


def predict_file(predict: Predict, file: Path) -> Answer:
    """Predict one file; one that cannot be read has an error of the contract's form as its answer.

    Raises InvalidOptionError, which every other file would have too.
    """
    try:
        encoded = read_image(file)
    except OSError as error:
        return {"code": NO_STATUS, "type": type(error).__name__, "message": error.strerror or str(error)}
    answer = predict(encoded)
    if answer.get("type") == InvalidOptionError.__name__:
        raise InvalidOptionError(answer["message"])
    return answer


def list_ends(file: Path) -> list[str]:
    """Return the ends of a path, from the bare name to all of it."""
    return [str(Path(*file.parts[start:])) for start in reversed(range(len(file.parts)))]


def tell_apart(files: Iterable[Path]) -> dict[Path, str]:
    """Return the shortest end of each path that no other file has."""
    ends = {file: list_ends(file) for file in files}
    uses = Counter(end for several in ends.values() for end in several)
    return {file: next((end for end in several if uses[end] == 1), str(file)) for file, several in ends.items()}


def has_failed(answer: Answer) -> bool:
    return "code" in answer


def read_prediction(answer: Answer) -> Prediction:
    """Return the prediction that a good answer is the JSON of, its boxes as corners."""
    return PREDICTION.validate_python(answer)
