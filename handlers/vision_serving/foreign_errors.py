"""The borders: whatever a decoder, a model or a handler of one's own raises costs as few answers as it can.

Six places catch everything. Four serve requests:

    try_stage (here)        one request that cannot be read, one image that cannot be prepared, joined or explained,
                            one answer that cannot be encoded or drawn
    pictures/decoding.py    one file: what its decoder raises makes it a damaged image, which is a 400
    batching.py             one batch: it is halved until the images that make the model fail stand alone
    handler.py              all requests of a batch: after a failure that belongs to no image each of them runs alone

Two load archives:

    errors.foreign_code     a runtime whose exceptions have no common base; a network whose code is the user's
    worker/guard.py         a load: TorchServe reports the reason of our own errors alone
"""

import gc
import logging
import traceback
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

from vision_serving.errors import DeviceLostError, InferenceError, OutOfResourcesError, RequestError
from vision_serving.log_lines import escape_lines

logger = logging.getLogger(__name__)

# What runtimes say in plain RuntimeErrors, and ONNX Runtime in its own, when memory cannot be had; in small letters.
OUT_OF_MEMORY = (
    "out of memory",  # CUDA, and TensorRT
    "out_of_memory",  # oneDNN
    "defaultcpuallocator",  # PyTorch
    "bad_alloc",  # C++, as OpenVINO, ONNX Runtime and TVM pass it on
    "bad allocation",
    "failed to allocate",  # OpenVINO, ONNX Runtime
    "could not create a memory object",  # oneDNN
    "cannot allocate memory",  # the C library
    "status_alloc_failed",  # cuBLAS, cuDNN
)
# How errors of CUDA begin in the texts of PyTorch, ONNX Runtime, TensorRT, cuDNN and cuBLAS.
OF_CUDA = ("cuda error", "cuda failure", "cuda runtime", "cuda_error", "cudaerror", "cudnn_status", "cublas_status")

READ_CHARS = 20_000

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def try_stage(
    stage: str, call: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Result | RequestError:
    """Return what a call gives, or whatever it raises as the error of one answer. stage: for the log and the answer."""
    try:
        return call(*args, **kwargs)
    except Exception as error:
        return to_request_error(error, stage)


def to_request_error(error: Exception, stage: str = "inference") -> RequestError:
    """Return the error as it is, where it is ours; of others the reason goes into the log alone."""
    if isinstance(error, RequestError):
        return error.without_frames()
    reason = escape_lines("".join(traceback.format_exception(error)))  # whose text is anyone's
    logger.error("%s failed on one image\n%s", stage, reason)
    if is_out_of_memory(error):
        return OutOfResourcesError(f"there is not enough memory for the {stage} of this image")
    if is_device_lost(error):
        return DeviceLostError()
    return InferenceError(
        f"the {stage} of this image failed; the reason is in the server's log, or on standard error without a server"
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out, that of the machine or of a GPU, whichever runtime says so."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = _beginning_of(error)
    return any(sign in text for sign in OUT_OF_MEMORY)


def is_device_lost(error: BaseException) -> bool:
    """Return whether a runtime is of no more use: after some errors of CUDA all later calls fail."""
    if isinstance(error, DeviceLostError):
        return True
    text = _beginning_of(error)
    if is_out_of_memory(error) or not any(sign in text for sign in OF_CUDA):
        return False
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # nothing to ask: the text decides
        return True
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


def _beginning_of(error: BaseException) -> str:
    """Return a text in small letters. It may be as long as what a client sent, and is searched many times."""
    return str(error)[:READ_CHARS].lower()


def release_memory() -> None:
    """Give back what nothing needs any more. To be called when no traceback holds a batch."""
    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
