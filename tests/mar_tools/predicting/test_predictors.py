import os
import threading
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from mar_tools.images import READ_BYTES, load_encoded_images, read_image
from mar_tools.predicting.inputs import Item, file_item, list_items
from mar_tools.predicting.predictors import predict_items, read_prediction, tell_apart
from mar_tools.predicting.rows import Answer, has_failed
from mar_tools.serving.torchserve_api import ServerError
from vision_serving.predictions import (
    Classification,
    ClassScore,
    Detection,
    Detections,
    ImageSize,
    KeypointDetection,
    MaskDetection,
    OrientedDetection,
    PolygonDetection,
    RunLengths,
)


def write_files(folder: Path, count: int) -> list[Item]:
    files = [folder / f"{number:02}.png" for number in range(count)]
    for number, file in enumerate(files):
        file.write_bytes(bytes([number]))
    return [file_item(str(file)) for file in files]


def number_of(encoded: bytes) -> Answer:
    return {"classes": [{"class_id": encoded[0], "label": "x", "score": 1.0}]}


@pytest.mark.parametrize("concurrency", [1, 3, 64])
@pytest.mark.parametrize("count", [0, 1, 20])
def test_answers_come_in_the_order_of_the_files(tmp_path: Path, concurrency: int, count: int) -> None:
    items = write_files(tmp_path, count)
    answers = list(predict_items(number_of, items, concurrency))
    assert [item for item, _ in answers] == items
    assert [answer["classes"][0]["class_id"] for _, answer in answers] == list(range(count))


def test_so_many_requests_are_sent_at_a_time(tmp_path: Path) -> None:
    together = threading.Barrier(4, timeout=10)

    def predict(encoded: bytes) -> Answer:
        together.wait()
        return number_of(encoded)

    assert len(list(predict_items(predict, write_files(tmp_path, 8), concurrency=4))) == 8


def test_the_first_answer_does_not_wait_for_the_last_file(tmp_path: Path) -> None:
    asked: list[int] = []

    def predict(encoded: bytes) -> Answer:
        asked.append(encoded[0])
        return number_of(encoded)

    answers = predict_items(predict, write_files(tmp_path, 50), concurrency=2)
    next(answers)
    assert len(asked) < 10
    answers.close()  # type: ignore[attr-defined]
    assert len(asked) < 10


def test_a_file_that_cannot_be_read_has_the_reason_as_its_answer(tmp_path: Path) -> None:
    gone, there = file_item(str(tmp_path / "gone.png")), *write_files(tmp_path, 1)
    (_, failed), (_, good) = predict_items(number_of, [gone, there], 2)
    assert failed == {"code": 0, "type": "FileNotFoundError", "message": "No such file or directory"}
    assert (has_failed(failed), has_failed(good)) == (True, False)


def test_a_server_that_is_gone_ends_the_work(tmp_path: Path) -> None:
    def predict(encoded: bytes) -> Answer:
        if encoded[0] == 2:
            raise ServerError("no server answers")
        return number_of(encoded)

    answers = predict_items(predict, write_files(tmp_path, 20), 2)
    assert [Path(next(answers)[0].name).name for _ in range(2)] == ["00.png", "01.png"]
    with pytest.raises(ServerError):
        next(answers)


@pytest.mark.parametrize(
    ("answer", "prediction"),
    [
        (
            {"classes": [{"class_id": 7, "label": "7", "score": 0.9}]},
            Classification((ClassScore(7, "7", 0.9),)),
        ),
        (
            {
                "detections": [{"class_id": 1, "label": "cat", "score": 0.5, "box": [1, 2, 3.5, 4], "more": [1]}],
                "image": {"width": 8, "height": 9},
            },
            Detections((Detection(1, "cat", 0.5, (1, 2, 3.5, 4)),), ImageSize(8, 9)),
        ),
    ],
    ids=["classes", "detections, with what a later version may add"],
)
def test_an_answer_is_read_back_as_the_prediction(answer: Answer, prediction: object) -> None:
    assert read_prediction(answer) == prediction


@pytest.mark.parametrize(
    "found",
    [
        MaskDetection(1, "cat", 0.5, (1, 2, 3, 4), RunLengths((8, 9), "12")),
        MaskDetection(1, "cat", 0.5, (1, 2, 3, 4), None),
        PolygonDetection(1, "cat", 0.5, (1, 2, 3, 4), ((1.0, 2.0, 3.0, 2.0, 3.0, 4.0),)),
        KeypointDetection(1, "cat", 0.5, (1, 2, 3, 4), ((1.0, 2.0, 0.9),)),
        OrientedDetection(1, "cat", 0.5, (1, 2, 3, 4), (1, 2, 3, 2, 3, 4, 1, 4)),
    ],
    ids=["mask", "no mask", "outlines", "keypoints", "a turned box"],
)
def test_what_an_answer_says_beyond_the_box_is_read_back(found: Detection) -> None:
    prediction = Detections((found,), ImageSize(9, 8))
    read = read_prediction(orjson.loads(orjson.dumps(prediction)))
    assert isinstance(read, Detections)
    assert read.detections == (found,)
    assert type(read.detections[0]) is type(found)


@pytest.mark.parametrize(
    ("files", "shown"),
    [
        (["p/a.png", "p/b.png"], ["a.png", "b.png"]),
        (["p/a/x.png", "p/b/x.png", "p/y.png"], ["a/x.png", "b/x.png", "y.png"]),
        (["/p/a/1/x.png", "/q/a/1/x.png"], ["p/a/1/x.png", "q/a/1/x.png"]),
        (["x.png", "a/x.png"], ["x.png", "a/x.png"]),
        (["a/x.png", "a/x.png"], ["x.png"]),
        ([], []),
    ],
)
def test_a_name_is_as_much_of_a_path_as_tells_it_from_the_others(files: list[str], shown: list[str]) -> None:
    assert list(tell_apart(map(Path, files)).values()) == shown


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "device"])
def test_what_may_never_end_has_the_reason_as_its_answer(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "x.png")
    [(_, failed)] = predict_items(number_of, list_items([str(tmp_path)]), 1)
    assert failed == {"code": 0, "type": "OSError", "message": "expected a file, got a pipe or device"}
    with pytest.raises(OSError, match="got a pipe or device"):
        load_encoded_images(tmp_path, 1)


def test_a_folder_in_a_list_has_the_reason_as_its_answer(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("folder.png\n")
    (tmp_path / "folder.png").mkdir()
    [(_, failed)] = predict_items(number_of, list_items([str(tmp_path / "list.txt")]), 1)
    assert failed == {"code": 0, "type": "IsADirectoryError", "message": "Is a directory"}


@pytest.mark.parametrize("size", [0, 1, 3 * READ_BYTES + 1])
def test_a_file_is_read_to_its_end(size: int, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(content := os.urandom(size))
    assert read_image(tmp_path / "x") == content


def test_a_file_that_tells_no_size_is_read_to_its_end() -> None:
    assert read_image(Path("/proc/filesystems")) == Path("/proc/filesystems").read_bytes() != b""
