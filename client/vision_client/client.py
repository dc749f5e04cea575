"""Images in, typed results out."""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context
from itertools import repeat
from typing import Any, Literal, TypeAlias, overload
from urllib.parse import quote

import requests
from rich.console import Console
from rich.progress import track

from vision_client.connection import Connection
from vision_client.errors import CONCERN_EVERY_IMAGE, PredictionError
from vision_client.images import ImageInput, encode_image, is_image
from vision_client.options import OPTIONS_HEADER, write_options
from vision_client.pictures import PictureMemory
from vision_client.results import Explanation, Prediction, Result, Results, read_answer
from vision_client.tokens import TokenSource

JSON = "application/json"
PICTURE_TYPES = {"png": "image/png", "jpeg": "image/jpeg"}

Headers: TypeAlias = Mapping[str, str | bytes]


class Client:
    """A server of vision models. Keeps its connections: make one, and use it for all images and from any thread.

        with Client("http://127.0.0.1:8080", token="key_file.json") as client:
            print(client.predict("digits", "photo.jpg", top_k=3).top)

    token: itself, the path of TorchServe's key_file.json, or a function that returns it; the last two are asked
    again when the server refuses the token. timeout_s: to wait for an answer. retries: after a 503 or where no
    connection comes about, with growing pauses. concurrency: images on their way at a time.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8080",
        token: TokenSource = None,
        *,
        timeout_s: float = 60.0,
        retries: int = 4,
        concurrency: int = 8,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"expected a url that begins with http:// or https://, got {url!r}")
        if concurrency < 1 or retries < 0 or timeout_s <= 0:
            raise ValueError(f"{concurrency=} has to be 1 or more, {retries=} 0 or more, {timeout_s=} more than 0")
        self.concurrency = concurrency
        self._timeout_s = timeout_s
        self._connection = Connection(url, token, concurrency, retries)
        self._pictures = PictureMemory()

    @overload
    def predict(
        self, model: str, images: ImageInput, *, model_version: str | None = None, **options: Any
    ) -> Prediction: ...
    @overload
    def predict(
        self,
        model: str,
        images: Iterable[ImageInput],
        *,
        model_version: str | None = None,
        progress: bool = False,
        **options: Any,
    ) -> Results: ...
    def predict(
        self,
        model: str,
        images: ImageInput | Iterable[ImageInput],
        *,
        model_version: str | None = None,
        progress: bool = False,
        **options: Any,
    ) -> Prediction | Results:
        """Return the answer for one image, or for several a list with one each, in order.

        images: paths, bytes, binary files, PIL images, uint8 arrays (H, W, 3) in RGB. options: of the model, such as
        top_k=3 or score_threshold=0.4. progress: a bar on standard error, where that is a terminal.
        Raises PredictionError for a single image; among several it stands in the image's place. What no image can
        escape (no server, a wrong token, model or option) ends the call: it is raised when no image has a prediction
        yet, else it stands in the place of each that is left.
        """
        path, headers = predictions_path(model, model_version), request_headers(JSON, options)

        def predict_one(image: ImageInput) -> Prediction:
            return self._ask(path, image, headers)

        if is_image(images):
            return predict_one(images)
        return self._predict_many(predict_one, list(images), progress)  # type: ignore[arg-type]

    def explain(
        self, model: str, image: ImageInput, *, model_version: str | None = None, **options: Any
    ) -> Explanation:
        """Return what in the image speaks for its best class, or for `target_class`. Raises PredictionError."""
        path, headers = predictions_path(model, model_version, "explanations"), request_headers(JSON, options)
        answer = self._ask(path, image, headers)
        if not isinstance(answer, Explanation):
            raise PredictionError(200, "UnexpectedAnswer", f"expected an explanation, got {answer!r:.200}")
        return answer

    def annotate(
        self,
        model: str,
        image: ImageInput,
        *,
        format: Literal["png", "jpeg"] = "png",
        model_version: str | None = None,
        **options: Any,
    ) -> bytes:
        """Return the image with its prediction drawn by the server, encoded. Raises PredictionError."""
        if format not in PICTURE_TYPES:
            raise ValueError(f"expected a format of {list(PICTURE_TYPES)}, got {format!r}")
        path, headers = predictions_path(model, model_version), request_headers(PICTURE_TYPES[format], options)
        response = self._connection.predict(path, encode_image(image), headers, self._timeout_s)
        content_type = response.headers.get("Content-Type", "")
        if content_type.partition(";")[0] != PICTURE_TYPES[format]:
            message = f"expected {PICTURE_TYPES[format]}, got {content_type}; archives built before annotated pictures"
            raise PredictionError(200, "UnexpectedAnswer", f"{message} have to be built anew")
        return response.content

    def health(self) -> str:
        """Return "Healthy", or why the server is not ready, e.g. loading. Raises PredictionError without an answer."""
        return self._connection.health(self._timeout_s)

    @property
    def session(self) -> requests.Session:
        """Return requests' own session, for certificates (`session.verify`) and proxies."""
        return self._connection.session

    def close(self) -> None:
        self._connection.session.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, path: str, image: ImageInput, headers: Headers) -> Prediction:
        encoded = encode_image(image)
        response = self._connection.predict(path, encoded, headers, self._timeout_s)
        return read_answer(response.content, self._pictures.keep(image, encoded))

    def _predict_many(
        self, predict_one: Callable[[ImageInput], Prediction], images: list[ImageInput], progress: bool
    ) -> Results:
        endings: list[PredictionError] = []

        def predict(image: ImageInput) -> Result:
            if endings:
                return endings[0]
            try:
                return predict_one(image)
            except CONCERN_EVERY_IMAGE as error:
                endings.append(error)
                return error
            except PredictionError as error:
                return error

        results = self._map_in_threads(predict, images, progress)
        if endings and not any(isinstance(result, Prediction) for result in results):
            raise endings[0]
        return results

    def _map_in_threads(
        self, predict: Callable[[ImageInput], Result], images: list[ImageInput], progress: bool
    ) -> Results:
        console = Console(stderr=True)
        hidden = not (progress and console.is_terminal)
        pool = ThreadPoolExecutor(self.concurrency)
        try:
            contexts = [copy_context() for _ in images]  # the span that a caller is in, for one
            answers = pool.map(Context.run, contexts, repeat(predict), images)
            return Results(track(answers, "predicting", len(images), console=console, transient=True, disable=hidden))
        finally:
            pool.shutdown(cancel_futures=True)  # also when interrupted: what has not been sent is not sent


def predictions_path(model: str, version: str | None, route: str = "predictions") -> str:
    return "/".join([f"/{route}", quote(model, safe=""), *([quote(version, safe="")] if version else [])])


def request_headers(accept: str, options: Mapping[str, Any]) -> Headers:
    headers: dict[str, str | bytes] = {"Content-Type": "application/octet-stream", "Accept": accept}
    text = write_options(options)
    if text:
        headers[OPTIONS_HEADER] = text
    return headers
