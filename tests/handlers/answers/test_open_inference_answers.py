from typing import Any

import numpy as np
import orjson
import pytest

from vision_serving.answers.open_inference import OutputTensor, encode_tensors, make_tensors
from vision_serving.errors import ImageDecodeError
from vision_serving.predictions import Classification, ClassScore, Detection, Detections, ImageSize

CATS = Classification((ClassScore(281, "tabby", 0.75), ClassScore(282, "tiger é", 0.25)))
PERSON = Detection(1, "person", 0.5, (1.5, 2.0, 30.25, 40.0))
TWO = Detections((PERSON, Detection(7, "car", 0.25, (0.0, 0.0, 5.0, 6.0))), ImageSize(64, 48))
NONE = Detections((), ImageSize(64, 48))
BROKEN = ImageDecodeError("damaged")
DTYPES: dict[str, Any] = {"INT64": "<i8", "FP32": "<f4"}


def tensors_of(*items: Any) -> dict[str, OutputTensor]:
    return {tensor.name: tensor for tensor in make_tensors(items, [f"entry {number}" for number in range(len(items))])}


def test_classes_are_tensors_of_images_and_ranks_padded_where_an_image_failed() -> None:
    tensors = tensors_of(CATS, BROKEN)
    assert tensors["predictions"] == OutputTensor("predictions", "BYTES", (2,), ["entry 0", "entry 1"])
    assert tensors["class_ids"] == OutputTensor("class_ids", "INT64", (2, 2), [281, 282, -1, -1])
    assert tensors["scores"] == OutputTensor("scores", "FP32", (2, 2), [0.75, 0.25, 0.0, 0.0])
    assert tensors["labels"] == OutputTensor("labels", "BYTES", (2, 2), ["tabby", "tiger é", "", ""])
    assert list(tensors) == ["predictions", "class_ids", "scores", "labels"]


def test_detections_are_padded_to_the_longest_and_counted() -> None:
    tensors = tensors_of(NONE, BROKEN, TWO)
    assert tensors["num_detections"] == OutputTensor("num_detections", "INT64", (3,), [0, 0, 2])
    assert tensors["boxes"].shape == (3, 2, 4)
    assert tensors["boxes"].values == [*[0.0] * 16, 1.5, 2.0, 30.25, 40.0, 0.0, 0.0, 5.0, 6.0]
    assert tensors["class_ids"].values == [-1, -1, -1, -1, 1, 7]
    assert list(tensors) == ["predictions", "num_detections", "boxes", "class_ids", "scores", "labels"]


def test_no_detections_at_all_are_empty_tensors() -> None:
    tensors = tensors_of(NONE)
    assert (tensors["boxes"].shape, tensors["boxes"].values) == ((1, 0, 4), [])
    assert tensors["boxes"].to_binary()[1] == b""


def test_failed_images_alone_have_no_tensors_of_numbers() -> None:
    assert list(tensors_of(BROKEN, BROKEN)) == ["predictions"]


@pytest.mark.parametrize("items", [(CATS, BROKEN), (TWO, NONE)], ids=["classes", "detections"])
def test_binary_data_hold_what_json_holds(items: tuple[Any, ...]) -> None:
    for tensor in tensors_of(*items).values():
        described, data = tensor.to_binary()
        assert described["parameters"] == {"binary_data_size": len(data)}
        assert described["shape"] == tensor.shape
        if tensor.datatype in DTYPES:
            assert np.frombuffer(data, DTYPES[tensor.datatype]).tolist() == tensor.values
        else:
            texts = [str(text).encode() for text in tensor.values]
            assert data == b"".join(len(text).to_bytes(4, "little") + text for text in texts)


def test_outputs_are_in_json_or_behind_it_each_as_wished() -> None:
    ids, scores = OutputTensor("ids", "INT64", (1,), [7]), OutputTensor("scores", "FP32", (1,), [0.5])
    head, *sections = encode_tensors([ids, scores], {"ids": True, "scores": False}, {"model_name": "m"})
    assert orjson.loads(head) == {
        "model_name": "m",
        "outputs": [
            {"name": "ids", "datatype": "INT64", "shape": [1], "parameters": {"binary_data_size": 8}},
            {"name": "scores", "datatype": "FP32", "shape": [1], "data": [0.5]},
        ],
    }
    assert sections == [b"\x07" + bytes(7)]
