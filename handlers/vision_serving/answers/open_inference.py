"""Predictions -> output tensors of the Open Inference Protocol (V2), in JSON or as binary data."""

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Any

import orjson

from vision_serving.predictions import (
    Classification,
    ConvertedDetections,
    ConvertedOrientedDetections,
    Detections,
    Embedding,
    Explanation,
    OrientedDetections,
    Prediction,
)
from vision_serving.requests.open_inference import LENGTH_BYTES


@dataclass(frozen=True)
class OutputTensor:
    """One output; values row by row."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: Sequence[Any]

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "datatype": self.datatype, "shape": self.shape, "data": self.values}

    def to_binary(self) -> tuple[dict[str, Any], bytes]:
        """Return the tensor's entry in the JSON, and its data."""
        data = PACKERS[self.datatype](self.values)
        parameters = {"binary_data_size": len(data)}
        return {"name": self.name, "datatype": self.datatype, "shape": self.shape, "parameters": parameters}, data


@dataclass(frozen=True)
class TensorField:
    """A tensor (images, entries, *shape): one attribute of each class or object, padded to the longest answer."""

    name: str
    datatype: str
    attribute: str
    padding: Any
    shape: tuple[int, ...] = ()

    def to_tensor(self, answers: Sequence[Sequence[Any]]) -> OutputTensor:
        width, read = max(map(len, answers)), attrgetter(self.attribute)
        cells = [value for answer in answers for value in [*map(read, answer), *[self.padding] * (width - len(answer))]]
        values = [number for cell in cells for number in cell] if self.shape else cells
        return OutputTensor(self.name, self.datatype, (len(answers), width, *self.shape), values)


CLASS_FIELDS = (
    TensorField("class_ids", "INT64", "class_id", -1),
    TensorField("scores", "FP32", "score", 0.0),
    TensorField("labels", "BYTES", "label", ""),
)
BOXES = TensorField("boxes", "FP32", "box", (0.0, 0.0, 0.0, 0.0), shape=(4,))

CORNERS = TensorField("corners", "FP32", "corners", (0.0,) * 8, shape=(8,))


def make_tensors(items: Sequence[Prediction | Explanation | Exception], entries: Sequence[str]) -> list[OutputTensor]:
    """Make `predictions`, a JSON text (`entries`) an image, and number tensors for the kinds that have some."""
    predictions = OutputTensor("predictions", "BYTES", (len(entries),), entries)
    kind = next((type(item) for item in items if not isinstance(item, Exception)), Exception)
    return [predictions, *(NUMBERS[kind](items) if kind in NUMBERS else [])]


def _tensors_of_classes(items: Sequence[Any]) -> list[OutputTensor]:
    answers = [item.classes if isinstance(item, Classification) else () for item in items]
    return [field.to_tensor(answers) for field in CLASS_FIELDS]


def _tensors_of_detections(items: Sequence[Any], more: Sequence[TensorField] = ()) -> list[OutputTensor]:
    answers = [item.detections if isinstance(item, Detections) else () for item in items]
    counts = OutputTensor("num_detections", "INT64", (len(answers),), [len(answer) for answer in answers])
    return [counts, *(field.to_tensor(answers) for field in (BOXES, *more, *CLASS_FIELDS))]


def _tensors_of_embeddings(items: Sequence[Any]) -> list[OutputTensor]:
    length = max(len(item.embedding) for item in items if isinstance(item, Embedding))
    nothing = (0.0,) * length
    answers = [item.embedding if isinstance(item, Embedding) else nothing for item in items]
    values = [value for answer in answers for value in answer]
    return [OutputTensor("embedding", "FP32", (len(answers), length), values)]


NUMBERS: dict[type[Any], Callable[[Sequence[Any]], list[OutputTensor]]] = {
    Classification: _tensors_of_classes,
    Detections: _tensors_of_detections,
    ConvertedDetections: _tensors_of_detections,
    Embedding: _tensors_of_embeddings,
    OrientedDetections: partial(_tensors_of_detections, more=[CORNERS]),
    ConvertedOrientedDetections: partial(_tensors_of_detections, more=[CORNERS]),
}


def encode_tensors(tensors: Sequence[OutputTensor], binary: Mapping[str, bool], top: Mapping[str, Any]) -> list[bytes]:
    """Return the JSON, then the data of each tensor that `binary` names. top: what stands beside the outputs."""
    outputs: list[dict[str, Any]] = []
    sections: list[bytes] = []
    for tensor in tensors:
        if binary[tensor.name]:
            output, section = tensor.to_binary()
            sections.append(section)
        else:
            output = tensor.to_json()
        outputs.append(output)
    return [orjson.dumps({**top, "outputs": outputs}), *sections]


def _pack_texts(texts: Sequence[str]) -> bytes:
    encoded = [text.encode("utf-8") for text in texts]
    return b"".join(len(text).to_bytes(LENGTH_BYTES, "little") + text for text in encoded)


PACKERS: dict[str, Callable[[Sequence[Any]], bytes]] = {
    "BYTES": _pack_texts,
    "INT64": lambda values: struct.pack(f"<{len(values)}q", *values),
    "FP32": lambda values: struct.pack(f"<{len(values)}f", *values),
}
