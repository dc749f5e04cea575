"""Ask a server of vision models: images in, typed results out. Needs neither PyTorch nor numpy."""

from vision_client.client import Client
from vision_client.errors import (
    AuthorizationError,
    ConnectionLostError,
    ImageInputError,
    InvalidOptionError,
    ModelNotFoundError,
    PredictionError,
    ServerBusyError,
    ServerTimeoutError,
    ServerUnreachableError,
)
from vision_client.results import (
    Classification,
    ClassScore,
    Detection,
    Detections,
    Embedding,
    Explanation,
    HeatMap,
    ImageSize,
    Prediction,
    Result,
    Results,
)

__all__ = [
    "AuthorizationError",
    "ClassScore",
    "Classification",
    "Client",
    "ConnectionLostError",
    "Detection",
    "Detections",
    "Embedding",
    "Explanation",
    "HeatMap",
    "ImageInputError",
    "ImageSize",
    "InvalidOptionError",
    "ModelNotFoundError",
    "Prediction",
    "PredictionError",
    "Result",
    "Results",
    "ServerBusyError",
    "ServerTimeoutError",
    "ServerUnreachableError",
]
