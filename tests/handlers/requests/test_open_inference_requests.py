import base64
from typing import Any

import numpy as np
import pytest
from conftest import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from vision_serving.errors import MalformedRequestError, PayloadTooLargeError, RequestError
from vision_serving.requests.contents import AnswerWishes, Pixels
from vision_serving.requests.open_inference import read_images, read_wishes

FILES = [b"\x89PNG picture", b"", b"other"]
RGB = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)


def tensor(datatype: str, shape: object, **keys: Any) -> dict[str, Any]:
    return {"name": "image", "datatype": datatype, "shape": shape, **keys}


def texts(files: list[bytes]) -> list[str]:
    return [base64.b64encode(file).decode() for file in files]


def pack(elements: list[bytes]) -> bytes:
    return b"".join(len(element).to_bytes(4, "little") + element for element in elements)


def sized(size: object, **others: Any) -> dict[str, Any]:
    return {"binary_data_size": size, **others}


@pytest.mark.parametrize(
    ("shape", "data"),
    [
        ([3], texts(FILES)),
        ([3, 1], texts(FILES)),
        ([3, 1], [[text] for text in texts(FILES)]),
        ([1, 3], [texts(FILES)]),
    ],
    ids=["flat", "flat, as MLServer has it", "nested", "one row"],
)
def test_bytes_in_json_are_base64(shape: list[int], data: list[Any]) -> None:
    assert read_images([tensor("BYTES", shape, data=data)], b"") == tuple(FILES)


def test_bytes_in_binary_are_files_and_base64_where_the_input_says_so() -> None:
    files, encoded = pack(FILES), pack([text.encode() for text in texts(FILES)])
    inputs = [
        tensor("BYTES", [3], parameters=sized(len(files))),
        tensor("BYTES", [3, 1], parameters=sized(len(encoded), content_type="base64")),
    ]
    assert read_images(inputs, files + encoded) == (*FILES, *FILES)


@pytest.mark.parametrize("data", [RGB.ravel().tolist(), RGB.tolist()], ids=["flat", "nested"])
def test_a_tensor_of_pixels_is_a_picture_for_each_of_its_first_axis(data: list[Any]) -> None:
    first, second = read_images([tensor("UINT8", [2, 4, 5, 3], data=data)], b"")
    assert first == Pixels(RGB[0].tobytes(), height=4, width=5)
    assert second == Pixels(RGB[1].tobytes(), height=4, width=5)


def test_pixels_in_binary_are_one_picture_without_a_first_axis() -> None:
    inputs = [tensor("UINT8", [4, 5, 3], parameters=sized(60))]
    assert read_images(inputs, RGB[1].tobytes()) == (Pixels(RGB[1].tobytes(), height=4, width=5),)


def test_json_and_binary_tensors_stand_in_one_request() -> None:
    inputs = [
        tensor("UINT8", [4, 5, 3], parameters=sized(60)),
        tensor("BYTES", [1], data=texts([b"file"])),
        tensor("UINT8", [4, 5, 3], parameters=sized(60)),
    ]
    first, second, third = read_images(inputs, RGB.tobytes())
    assert (first, second, third) == (Pixels(RGB[0].tobytes(), 4, 5), b"file", Pixels(RGB[1].tobytes(), 4, 5))


BROKEN: dict[str, tuple[object, str]] = {
    "no object": (5, "input 'int': expected {"),
    "no datatype": ({"name": "x", "shape": [1], "data": []}, "input 'x': datatype 'None'"),
    "floats": (tensor("FP32", [1], data=[1.0]), "datatype 'FP32'; expected datatype BYTES"),
    "no shape": (tensor("BYTES", None, data=[]), "shape None"),
    "empty shape": (tensor("BYTES", [], data=[]), "shape []"),
    "a side of 0": (tensor("BYTES", [0], data=[]), "shape [0]"),
    "a negative side": (tensor("UINT8", [-1, -1, 3], data=[1, 2, 3]), "shape [-1, -1, 3]"),
    "a side that is true": (tensor("BYTES", [True], data=texts([b"x"])), "shape [True]"),
    "nine axes": (tensor("BYTES", [1] * 9, data=texts([b"x"])), "shape [1, 1"),
    "no data": (tensor("BYTES", [1]), 'expected "data" to be a list, got NoneType'),
    "too few elements": (tensor("BYTES", [2], data=texts([b"x"])), "1 elements; the shape [2] needs 2"),
    "ragged": (tensor("BYTES", [2, 1], data=[["YQ=="], []]), "have not the shape [2, 1]"),
    "lists of another length": (tensor("BYTES", [1, 2], data=[["YQ=="], ["YQ=="]]), "2 elements; the shape [1] needs"),
    "gray pixels": (tensor("UINT8", [4, 5], data=[0] * 20), "shape [4, 5]; expected"),
    "four channels": (tensor("UINT8", [1, 1, 4], data=[0] * 4), "shape [1, 1, 4]; expected"),
    "a value above 255": (tensor("UINT8", [1, 1, 3], data=[0, 256, 0]), "whole numbers from 0 to 255"),
    "a negative value": (tensor("UINT8", [1, 1, 3], data=[0, -1, 0]), "whole numbers from 0 to 255"),
    "a fraction": (tensor("UINT8", [1, 1, 3], data=[0, 0.5, 0]), "whole numbers from 0 to 255"),
    "a text": (tensor("UINT8", [1, 1, 3], data=[0, "1", 0]), "whole numbers from 0 to 255"),
    "too few pixels": (tensor("UINT8", [2, 2, 3], data=[0] * 11), "11 elements; the shape [2, 2, 3] needs 12"),
}


@pytest.mark.parametrize(("broken", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_tensor_is_one_error_and_its_neighbours_are_read(broken: object, message: str) -> None:
    good = tensor("BYTES", [1], data=texts([b"file"]))
    first, error, last = read_images([good, broken, good], b"")
    assert first == last == b"file"
    assert isinstance(error, MalformedRequestError)
    assert message in str(error)


@pytest.mark.parametrize("data", [b"\x05\x00\x00\x00abc", b"\x01\x00"], ids=["cut element", "cut length"])
def test_a_binary_element_that_is_cut_off_is_an_error_of_its_tensor(data: bytes) -> None:
    (error,) = read_images([tensor("BYTES", [1], parameters=sized(len(data)))], data)
    assert "cut off" in str(error)


def test_an_element_that_is_no_base64_is_an_error_of_its_own() -> None:
    first, *failed = read_images([tensor("BYTES", [3], data=["YQ==", "?", 5])], b"")
    assert first == b"a"
    assert [str(error) for error in failed] == [
        "input 'image', element 2 of 3: the image is not valid base64: character 1 of 1 is '?'",
        "input 'image', element 3 of 3: expected an image as a string of base64, got int",
    ]
    assert all(isinstance(error, MalformedRequestError) for error in failed)


@pytest.mark.parametrize("size", [59, 61, -60, "60", True, 1.5], ids=repr)
def test_sizes_that_are_not_those_of_the_binary_data_fail_the_request(size: object) -> None:
    with pytest.raises(MalformedRequestError, match="binary_data_size"):
        read_images([tensor("UINT8", [4, 5, 3], parameters=sized(size))], RGB[0].tobytes())


@pytest.mark.parametrize(
    "inputs",
    [
        [tensor("UINT8", [100_000, 1, 1, 3], data=[0] * 300_000)],
        [tensor("BYTES", [100_000], data=["?"] * 100_000)],
        [tensor("BYTES", [2**62, 2**62], data=[])],
        [tensor("BYTES", [1000], data=["?"] * 1000)] * 5,
        [5] * 100_000,
    ],
    ids=["pixels", "elements", "astronomical", "together", "tensors"],
)
def test_more_images_than_any_archive_serves_are_no_more_than_a_few_thousand_objects(inputs: list[Any]) -> None:
    try:
        pictures = read_images(inputs, b"")
    except PayloadTooLargeError:
        return
    assert [type(picture) for picture in pictures] == [PayloadTooLargeError]


WISHES: dict[str, tuple[dict[str, Any], AnswerWishes]] = {
    "nothing": ({}, AnswerWishes()),
    "empty id": ({"id": ""}, AnswerWishes("")),
    "all in binary": ({"parameters": {"binary_data_output": True}}, AnswerWishes(binary=True)),
    "outputs": ({"outputs": [{"name": "scores"}]}, AnswerWishes(outputs={"scores": False})),
    "one in binary": (
        {"outputs": [{"name": "a", "parameters": {"binary_data": True}}, {"name": "b", "parameters": {}}]},
        AnswerWishes(outputs={"a": True, "b": False}),
    ),
    "all but one": (
        {
            "outputs": [{"name": "a"}, {"name": "b", "parameters": {"binary_data": False}}],
            "parameters": {"binary_data_output": True},
        },
        AnswerWishes(outputs={"a": True, "b": False}, binary=True),
    ),
}


@pytest.mark.parametrize(("document", "wishes"), WISHES.values(), ids=WISHES)
def test_wishes_are_id_outputs_and_binary_data(document: dict[str, Any], wishes: AnswerWishes) -> None:
    assert read_wishes(document) == wishes


@pytest.mark.parametrize(
    "document", [{"id": 5}, {"outputs": 5}, {"outputs": ["x"]}, {"outputs": [{}]}, {"outputs": [{"name": 1}]}], ids=str
)
def test_wishes_of_another_form_are_refused(document: dict[str, Any]) -> None:
    with pytest.raises(MalformedRequestError):
        read_wishes(document)


@settings(max_examples=examples(200), deadline=None)
@given(files=st.lists(st.binary(max_size=30), min_size=1, max_size=5), cut=st.integers(0, 40))
def test_binary_files_come_out_as_they_went_in_or_are_one_error(files: list[bytes], cut: int) -> None:
    section = pack(files)[: len(pack(files)) - cut]
    pictures = read_images([tensor("BYTES", [len(files)], parameters=sized(len(section)))], section)
    if cut == 0:
        assert pictures == tuple(files)
    else:
        assert len(pictures) == 1
        assert isinstance(pictures[0], RequestError)
