"""Everything this project raises on purpose.

    VisionServingError
    ├── ConfigError                 an archive, recipe or setting that cannot be used as it is
    ├── BackendError                an artifact that its backend cannot load or run here
    └── RequestError                one request or image that gets its own answer, with an HTTP status
        ├── MalformedRequestError   400
        ├── ImageDecodeError        400
        ├── NotAcceptableError      406
        ├── PayloadTooLargeError    413
        ├── UnsupportedFormatError  415
        ├── InvalidOptionError      422
        ├── InferenceError          500
        │   └── DeviceLostError
        ├── NotSupportedError       501
        ├── DrainingError           503
        ├── ExplanationsBusyError   503
        ├── ExplanationTimeoutError 504
        └── OutOfResourcesError     507

All are RuntimeErrors: TorchServe reports those as a failed load, while any other error kills the worker.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version


class VisionServingError(RuntimeError):
    """Root of the tree."""


class ConfigError(VisionServingError):
    """A configuration that cannot be used; the message names the file, the key and what is allowed."""


class BackendError(VisionServingError):
    """A backend that is missing here, or an artifact that it cannot load or run."""


class MissingPackageError(BackendError):
    """A backend's package is not installed; the message says how to."""


class RequestError(VisionServingError):
    """A fault of one request or image. `status` is its HTTP status; the class name is the `type` of the answer."""

    status = 400
    retry_after_s: int | None = None  # when it is worth asking again

    def without_frames(self) -> "RequestError":
        """Return itself, to be kept as a result: the frames it was raised through hold the batch that will hold it.

        Python's collector of such cycles comes by once in an hour; by then they are hundreds of megabytes.
        """
        self.__traceback__ = self.__cause__ = self.__context__ = None
        return self


class MalformedRequestError(RequestError):
    """A body that holds no image where the contract expects one."""


class ImageDecodeError(RequestError):
    """Bytes that are not a complete image."""


class NotAcceptableError(RequestError):
    """An answer in a form that this request cannot have."""

    status = 406


class PayloadTooLargeError(RequestError):
    """More pixels or images than the limits allow."""

    status = 413


class UnsupportedFormatError(RequestError):
    """A known file format that is not on the allow-list."""

    status = 415


class InvalidOptionError(RequestError):
    """An unknown or out-of-range inference option."""

    status = 422


class InferenceError(RequestError):
    """The model failed on this image alone."""

    status = 500


class DeviceLostError(InferenceError):
    """A GPU, or a runtime, that is of no more use in this process, whatever it is given."""

    def __init__(self) -> None:
        super().__init__("the model's device or runtime failed, and this worker is replaced; send the request again")


class NotSupportedError(RequestError):
    """Something that this model, or its backend, cannot do."""

    status = 501


class DrainingError(RequestError):
    """The server is about to stop, and takes no more requests."""

    status = 503
    retry_after_s = 1


class ExplanationsBusyError(RequestError):
    """An explanation for which the predictions of the same queue or batch leave no time."""

    status = 503

    def __init__(self, reason: str, retry_after_s: int) -> None:
        super().__init__(f"{reason}; ask again in {retry_after_s} s, with fewer at once")
        self.retry_after_s = retry_after_s


class ExplanationTimeoutError(RequestError):
    """An explanation that takes longer than the archive allows."""

    status = 504


class OutOfResourcesError(RequestError):
    """Memory ran out on this image alone."""

    status = 507


@contextmanager
def foreign_code(
    explain: Callable[[BaseException], VisionServingError], passed_on: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Turn whatever foreign code raises while a model is loaded into an error of ours.

    For runtimes whose exceptions have no common base, and for a user's own files, which may end the process, too.
    """
    try:
        yield
    except passed_on:
        raise
    except (Exception, SystemExit) as error:
        raise explain(error) from error


def tell(error: BaseException) -> str:
    """Return an error's text in one line, but for the lines of a file to write, whose name begins them."""
    said, mark, lines = str(error).partition("\n\n    # ")
    return " ".join(said.split()) + mark + lines


def first_line(error: BaseException) -> str:
    """Return the beginning of a foreign error; its type where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def last_line(error: BaseException) -> str:
    """Return the end of a foreign error, where most runtimes put the reason; its type where it says nothing."""
    return next(reversed(str(error).strip().splitlines()), type(error).__name__)


# Packages beyond requirements/serve.txt, by the name they are imported by -> requirements/<that>.txt. Of a runtime that
# only its backend imports, REQUIREMENTS in that file is enough.
EXTRAS = {
    "torchvision": "torchvision",
    "opentelemetry": "tracing",
    "onnx": "onnx",
    "onnxscript": "onnx",
    "onnxruntime": "onnx",
    "timm": "timm",
    "transformers": "huggingface",
    "pycocotools": "evaluation",
    "pillow_heif": "heif",
    "aiohttp": "benchmark",
    "matplotlib": "benchmark",
    "optuna": "benchmark",
    "captum": "explanations",
    "pytorch_lightning": "train",
    "torchmetrics": "train",
    "torch_pruning": "train",
    "playwright": "edge",
    "executorch": "executorch",
    "pyarrow": "offline",
    "fsspec": "offline",
    "lab": "lab",
    "jinja2": "lab",
    "skimage": "lab",
    "atheris": "fuzz",
}


TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def how_to_install(error: ModuleNotFoundError, requirements: str | None = None) -> str:
    """Return what is missing, and the command that brings it. requirements: of the file where EXTRAS names none."""
    name = str(error.name).partition(".")[0]
    extra = EXTRAS.get(name, requirements)
    what = f"-c constraints.txt -r requirements/{extra}.txt" if extra else name
    if name == "torchvision" and version("torch").endswith("+cpu"):  # beside which PyPI's has no operators
        what = f"--extra-index-url {TORCH_CPU_INDEX} {what}"
    return f"the package {name!r}: pip install {what}"
