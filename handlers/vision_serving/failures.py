"""The border of one image: whatever a decoder or a model raises becomes the error of its answer."""

import logging

import torch

from vision_serving.errors import InferenceError, OutOfResourcesError, RequestError

logger = logging.getLogger(__name__)

CPU_OUT_OF_MEMORY = "DefaultCPUAllocator: can't allocate memory"  # torch raises it as a plain RuntimeError


def to_request_error(error: Exception, stage: str = "inference") -> RequestError:
    """The error as it is, where it is ours; of others the reason goes into the log alone."""
    if isinstance(error, RequestError):
        return error
    logger.error("%s failed on one image", stage, exc_info=error)
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or CPU_OUT_OF_MEMORY in str(error):
        return OutOfResourcesError(f"there is not enough memory for the {stage} of this image")
    return InferenceError(f"the {stage} of this image failed; the server's log has the reason")
