"""What can go wrong with one image, by what to do about it.

    PredictionError
    ├── ImageInputError          the image cannot be read or sent; it never left this machine
    ├── ServerUnreachableError   no server takes connections at this address
    ├── ConnectionLostError      the connection broke before an answer came
    ├── ServerTimeoutError       no answer within timeout_s
    ├── AuthorizationError       400 InvalidKeyException (TorchServe), 401, 403: the token
    ├── ModelNotFoundError       404
    ├── InvalidOptionError       422
    └── ServerBusyError          503: the queue is full, or no worker is ready

Other answers of the server, such as 400 ImageDecodeError, are a plain PredictionError with its code, type and message.
"""


class PredictionError(Exception):
    """An image without a prediction. Raised for a single image, and in its place among many.

    code: the HTTP status, None where no answer came. type: the server's name of the error. message: its reason.
    """

    def __init__(self, code: int | None, type: str, message: str) -> None:
        super().__init__(code, type, message)
        self.code = code
        self.type = type
        self.message = message

    def __str__(self) -> str:
        return self.message if self.code is None else f"{self.code} {self.type}: {self.message}"


class ImageInputError(PredictionError):
    """A file that cannot be read, or an array that is no picture."""


class ServerUnreachableError(PredictionError):
    """Nothing listens there, or its name or certificate is wrong."""


class ConnectionLostError(PredictionError):
    """The server closed the connection without an answer, twice."""


class ServerTimeoutError(PredictionError):
    """It may still be at work on the image: sending it again is up to you."""


class AuthorizationError(PredictionError):
    """No token, a wrong one, or one that has expired."""


class ModelNotFoundError(PredictionError):
    """The server has no such model, or no such version of it."""


class InvalidOptionError(PredictionError):
    """An unknown or out-of-range option; the message names the valid ones."""


class ServerBusyError(PredictionError):
    """Still busy after all retries."""


# Errors that no other image of the same call can escape.
CONCERN_EVERY_IMAGE = (ServerUnreachableError, AuthorizationError, ModelNotFoundError, InvalidOptionError)
