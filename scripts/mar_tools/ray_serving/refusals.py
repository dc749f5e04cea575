"""What the ingress answers itself: an error in JSON, as the front has them, and never another form."""

from collections.abc import Mapping

import orjson

from mar_tools.ray_serving.exchange import Answer

JSON_TYPE = "application/json"
KEY_HINT = "no valid client key; send it as 'Authorization: Bearer KEY' or 'X-Api-Key: KEY'"
ROUTES_HINT = (
    "no such route; predictions are at /predictions/{model}, /v1/models/{model}:predict and /v2/models/{model}/infer"
)


class RefusalError(Exception):
    """One request that is refused. headers: of its answer."""

    def __init__(self, status: int, type: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.type, self.message, self.headers = status, type, message, dict(headers or {})


def refuse_key() -> RefusalError:
    return RefusalError(401, "UnauthorizedError", KEY_HINT, {"WWW-Authenticate": "Bearer"})


def refuse_route() -> RefusalError:
    return RefusalError(404, "NotFoundError", ROUTES_HINT)


def refuse_method(allowed: str) -> RefusalError:
    message = "this route does not take this method; those that it takes are in the header Allow"
    return RefusalError(405, "MethodNotAllowedError", message, {"Allow": allowed})


def refuse_size(most_bytes: int) -> RefusalError:
    return RefusalError(
        413, "RequestTooLargeError", f"the body is larger than {most_bytes} bytes", {"Connection": "close"}
    )


def refuse_slow(seconds: float) -> RefusalError:
    message = f"nothing of the body came for {seconds:g} s"
    return RefusalError(408, "RequestTimeoutError", message, {"Connection": "close"})


def refuse_fault() -> RefusalError:
    """Return what is said where the ingress itself failed; its log says why."""
    return RefusalError(500, "InternalServerError", "the server failed; the log of its ingress says why")


def refuse_model(model: str) -> RefusalError:
    """Return what TorchServe says of a model that it does not serve."""
    return RefusalError(404, "ModelNotFoundException", f"Model not found: {model}")


def refuse_version(model: str, version: str) -> RefusalError:
    """Return what TorchServe says of a version that it does not serve."""
    message = f"Model version: {version} does not exist for model: {model}"
    return RefusalError(404, "ModelVersionNotFoundException", message)


def refuse_busy(what: str) -> RefusalError:
    return RefusalError(503, "ServerBusyError", f"{what}; wait as long as Retry-After says", {"Retry-After": "1"})


def refuse_unready(what: str) -> RefusalError:
    return RefusalError(503, "UnavailableError", what, {"Retry-After": "5"})


class BrokenArchiveError(RefusalError):
    """An archive that cannot be loaded, however often it is tried at once."""


def refuse_broken(what: str) -> BrokenArchiveError:
    return BrokenArchiveError(503, "UnavailableError", what, {"Retry-After": "5"})


def refuse_lost(what: str) -> RefusalError:
    """Return what is said where a replica ended, or failed, with the request, and no other one is asked."""
    return RefusalError(500, "InferenceError", what)


def refuse_late(seconds: float) -> RefusalError:
    return RefusalError(504, "UpstreamTimeoutError", f"the model did not answer within {seconds:g} s")


def to_answer(refusal: RefusalError, path: str) -> Answer:
    """Return the answer of a refusal. Clients of V1 and V2 read the message under another name, too."""
    body = {"code": refusal.status, "type": refusal.type, "message": refusal.message}
    if path.startswith(("/v1/", "/v2/")):
        body["error"] = refusal.message
    return Answer(refusal.status, JSON_TYPE, refusal.headers, orjson.dumps(body))


def to_json(document: object, status: int = 200) -> Answer:
    return Answer(status, JSON_TYPE, {}, orjson.dumps(document))
