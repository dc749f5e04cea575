"""One server: kept connections, retries where asking twice changes nothing, tokens, and answers that are errors."""

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError, ReadTimeoutError
from urllib3.util import Retry

from vision_client.errors import (
    AuthorizationError,
    ConnectionLostError,
    InvalidOptionError,
    ModelNotFoundError,
    PredictionError,
    ServerBusyError,
    ServerTimeoutError,
    ServerUnreachableError,
)
from vision_client.tokens import Tokens, TokenSource
from vision_client.tracing import trace_request

CONNECT_TIMEOUT_S = 3.0
BUSY = 503
INVALID_KEY = "InvalidKeyException"  # TorchServe's answer to a missing, wrong or expired token, with status 400

ErrorType: TypeAlias = type[PredictionError]
# Status -> the error, and what to do about it.
STATUSES: dict[int, tuple[ErrorType, str]] = {
    401: (AuthorizationError, "give Client(..., token=...) the token that this server asks for"),
    403: (AuthorizationError, "this token is not allowed to predict"),
    404: (ModelNotFoundError, "on the server's machine `manage_models.py list` shows what it serves"),
    413: (PredictionError, "send the image in a smaller size"),
    422: (InvalidOptionError, ""),
    503: (
        ServerBusyError,
        "still so after every retry: send fewer images at a time (concurrency), wait longer (retries), "
        "or give the model more workers",
    ),
}  # fmt: skip
NO_TOKEN = (
    "this server asks for a token: Client(..., token=...) with the inference key of its key_file.json, or its path"
)
WRONG_TOKEN = (
    "the token is wrong or has expired; "
    "on the server's machine `manage_models.py token inference --renew` prints a new one"
)


class PatientRetry(Retry):
    """Never asks again after a time-out: what hangs one worker must not be sent to the next."""

    def increment(self, *arguments: Any, **keywords: Any) -> "PatientRetry":
        error = keywords.get("error")
        if isinstance(error, ReadTimeoutError):
            raise error
        return super().increment(*arguments, **keywords)


class BearerAuth(requests.auth.AuthBase):
    """The token as a header; as `auth`, so that no ~/.netrc replaces it."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token is not None:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class Connection:
    """Safe to use from several threads. Raises a PredictionError for whatever is no answer with status 200."""

    def __init__(
        self,
        url: str,
        token: TokenSource,
        concurrency: int,
        retries: int,
        retried: Sequence[str] = ("GET", "POST"),  # a prediction changes nothing
        connect_retries: int | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self.session = new_session(self.url, concurrency, retries, retried, connect_retries)
        self._tokens = Tokens(token)

    def request(self, method: str, path: str, timeout_s: float, **arguments: Any) -> requests.Response:
        """Return the answer, whatever its status, with a new token where the first was refused."""
        token = self._tokens.current()
        response = self._send(method, path, token, timeout_s, **arguments)
        if _is_refused(response) and self._tokens.renew(refused=token):
            response = self._send(method, path, self._tokens.current(), timeout_s, **arguments)
        return response

    def health(self, timeout_s: float) -> str:
        """Return the status of /ping, also of a server that is not well."""
        response = self.request("GET", "/ping", timeout_s)
        try:
            return str(response.json()["status"])
        except (ValueError, KeyError, TypeError):
            raise self._read_failure(response) from None

    def predict(
        self, path: str, body: bytes, headers: Mapping[str, str | bytes], timeout_s: float
    ) -> requests.Response:
        """Return an answer with status 200."""
        with trace_request("POST", self.url, path) as (trace_headers, tell_status):
            response = self.request("POST", path, timeout_s, data=body, headers={**headers, **trace_headers})
            tell_status(response.status_code)
            if response.status_code != requests.codes.ok:
                raise self._read_failure(response)
        return response

    def _read_failure(self, response: requests.Response) -> PredictionError:
        """Return the server's own words where it has some, and what to do."""
        status = response.status_code
        type, message = _read_error(response)
        if type == INVALID_KEY:
            return AuthorizationError(status, type, NO_TOKEN if self._tokens.current() is None else WRONG_TOKEN)
        if response.is_redirect:
            return PredictionError(
                status, type, f"the server moved to {response.headers['location']}; give Client that url"
            )
        error, hint = STATUSES.get(status, (PredictionError, ""))
        return error(status, type, f"{message}; {hint}" if hint else message)

    def _send(self, method: str, path: str, token: str | None, timeout_s: float, **arguments: Any) -> requests.Response:
        timeouts = (min(CONNECT_TIMEOUT_S, timeout_s), timeout_s)
        try:
            return self.session.request(
                method, self.url + path, auth=BearerAuth(token), timeout=timeouts, allow_redirects=False, **arguments
            )
        except requests.RequestException as error:
            raise self._translate(error, timeout_s) from error

    def _translate(self, error: requests.RequestException, timeout_s: float) -> PredictionError:
        last = _last_cause(error)
        if isinstance(error, requests.ReadTimeout):
            return _without_answer(ServerTimeoutError, f"{self.url} did not answer within {round(timeout_s, 1):g} s")
        if isinstance(last, (NewConnectionError, ConnectTimeoutError)):
            hint = "start it (python scripts/serve_models.py start), or give Client the address that it listens on"
            return _without_answer(ServerUnreachableError, f"no server answers at {self.url}; {hint}")
        if isinstance(error, requests.exceptions.SSLError):
            hint = "before a front that signed its own certificate: client.session.verify = 'front/certificate.pem'"
            return _without_answer(ServerUnreachableError, f"cannot connect to {self.url}: {last}; {hint}")
        if isinstance(error, requests.exceptions.ProxyError):
            return _without_answer(ServerUnreachableError, f"cannot connect to {self.url}: {last}")
        return _without_answer(ConnectionLostError, f"{self.url} closed the connection without an answer: {last}")


def new_session(
    url: str, concurrency: int, retries: int, retried: Sequence[str], connect_retries: int | None = None
) -> requests.Session:
    """Return a connection a thread, kept. connect_retries: of a refused connection, where not as many as `retries`.

    Environment proxies are for other machines alone: no one else sees a local token.
    """
    session = requests.Session()
    session.trust_env = not _is_loopback(url)
    retry = PatientRetry(
        total=retries,
        connect=connect_retries,
        read=min(retries, 1),  # what ends a worker must not be sent to one worker after the other
        status_forcelist=[BUSY],
        allowed_methods=retried,
        backoff_factor=0.3,
        backoff_jitter=0.1,
        respect_retry_after_header=False,  # it would retry 413 and 429 too, and wait for as long as it says
        raise_on_status=False,
    )
    adapter = HTTPAdapter(max_retries=retry, pool_connections=1, pool_maxsize=concurrency)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


def _read_error(response: requests.Response) -> tuple[str, str]:
    """Return (type, message). What the body does not tell, for example a proxy's page, the status line does."""
    status_line = response.reason or f"status {response.status_code}"
    try:
        document = response.json()
        return str(document["type"]), str(document.get("message") or status_line)
    except (ValueError, KeyError, TypeError, AttributeError):
        return "HTTPError", status_line


def _is_refused(response: requests.Response) -> bool:
    status = response.status_code
    return status == requests.codes.unauthorized or (
        status == requests.codes.bad_request and _read_error(response)[0] == INVALID_KEY
    )


def _without_answer(error: type[PredictionError], message: str) -> PredictionError:
    return error(None, error.__name__, message)


def _last_cause(error: requests.RequestException) -> object:
    """Return urllib3's error inside that of requests."""
    inner = error.args[0] if error.args else error
    return getattr(inner, "reason", None) or inner


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
