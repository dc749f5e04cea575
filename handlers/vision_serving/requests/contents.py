"""What a request holds, whatever protocol brought it: images, and wishes for the answer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from vision_serving.errors import RequestError


@dataclass(frozen=True)
class Pixels:
    """An image that came decoded: uint8 RGB, row by row."""

    data: bytes
    height: int
    width: int


SentImage: TypeAlias = bytes | Pixels | RequestError  # encoded, decoded, or why it cannot be read
ImageIndex: TypeAlias = tuple[int, int]  # number of the request in the batch, number of the image in the request


@dataclass(frozen=True)
class AnswerWishes:
    """What a request says of its answer.

    outputs: name -> whether as binary data; when empty, all outputs. has_status: false over gRPC, where a failure
    shows in the output tensors alone.
    """

    id: str | None = None
    outputs: Mapping[str, bool] = field(default_factory=dict)
    binary: bool = False
    has_status: bool = True


NO_WISHES = AnswerWishes()
