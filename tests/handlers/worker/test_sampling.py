"""What a worker keeps of its predictions: of which, what, and that nothing of it costs an answer."""

import base64
import json
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from batch_context import Batch
from conftest import MakeHandler
from fakes import BLUE, GREEN, RED, encode_image, png, solid_image

from mar_tools.waiting import wait_until
from vision_serving.answers.responses import ModelIdentity
from vision_serving.worker import sampling
from vision_serving.worker.sample_files import PICTURES, list_files
from vision_serving.worker.sample_records import MOST_IMAGES
from vision_serving.worker.sample_settings import SampleBounds, SampleSettings
from vision_serving.worker.sampling import Sampler
from vision_serving.worker.service import TorchServeHandler

PATIENCE_S = 60.0
JSON = {"content-type": "application/json"}
MODEL = ModelIdentity("colours", "1.0")
MakeSampled = Callable[..., TorchServeHandler]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "samples" / "colours"


@pytest.fixture
def sampled(make_handler: MakeHandler, folder: Path) -> MakeSampled:
    """A handler of a task whose predictions are sampled."""

    def make(
        task: str = "classification", share: float = 1.0, pictures: bool = False, **more: Any
    ) -> TorchServeHandler:
        handler = make_handler(task)
        settings = SampleSettings(folder, share, pictures, SampleBounds(8 << 20, 30))
        handler.sampler = Sampler(settings, MODEL, handler.config.limits, **more)
        return handler

    return make


def ask(handler: TorchServeHandler, *requests: tuple[bytes, dict[str, str]]) -> list[bytes]:
    batch = Batch(*requests)
    return handler.handle(batch.rows, batch)


def count_writers() -> int:
    return sum(thread.name == "samples" for thread in threading.enumerate())


def several(*images: bytes) -> tuple[bytes, dict[str, str]]:
    return json.dumps({"instances": [{"b64": base64.b64encode(image).decode()} for image in images]}).encode(), JSON


def records(folder: Path, count: int) -> list[dict[str, Any]]:
    """Wait until there are so many, for a thread writes them."""

    def read() -> list[dict[str, Any]]:
        return [orjson.loads(line) for path in list_files(folder) for line in path.read_bytes().splitlines()]

    assert wait_until(lambda: len(read()) >= count, PATIENCE_S)
    return read()


def test_a_sample_says_what_came_and_what_was_answered(sampled: MakeSampled, folder: Path) -> None:
    ask(sampled(), (png(RED, (8, 12)), {"X-Request-Id": "order-17"}))
    [record] = records(folder, 1)
    assert record.pop("time").startswith("20")
    [image] = record.pop("images")
    assert record == {
        "id": "order-17", "model": "colours", "version": "1.0", "status": 200, "own_options": False, "count": 1,
    }  # fmt: skip
    scores = image.pop("scores")
    assert image == {
        "outcome": "predicted", "bytes": len(png(RED, (8, 12))), "format": "PNG", "width": 12, "height": 8,
    }  # fmt: skip
    assert [class_id for class_id, _ in scores] == [0, 1, 2]
    assert scores[0][1] > 0.9


def test_a_detectors_sample_has_how_many_there_are_and_the_best(sampled: MakeSampled, folder: Path) -> None:
    ask(sampled("detection"), (png(RED), {"X-Inference-Options": "box_format=xywhn"}))
    [record] = records(folder, 1)
    [image] = record["images"]
    assert (image["detections"], image["scores"], record["own_options"]) == (1, [[0, image["scores"][0][1]]], False)


@pytest.mark.parametrize(
    ("options", "own"), [("top_k=1", False), ("score_threshold=0.1", True), ("class_filter=red", True)]
)
def test_a_request_that_chooses_what_is_answered_is_marked(
    sampled: MakeSampled, folder: Path, options: str, own: bool
) -> None:
    task = "classification" if options == "top_k=1" else "detection"
    ask(sampled(task), (png(RED), {"X-Inference-Options": options}))
    assert records(folder, 1)[0]["own_options"] == own


def test_a_failure_is_its_type_and_nothing_of_its_text(sampled: MakeSampled, folder: Path) -> None:
    ask(sampled(), (b"a client's own words", {}), several(png(GREEN), b"no image"))
    one, other = sorted(records(folder, 2), key=lambda record: int(record["count"]))
    assert (one["status"], one["images"][0]["outcome"]) == (400, "ImageDecodeError")
    assert (other["status"], [image["outcome"] for image in other["images"]]) == (
        200,
        ["predicted", "ImageDecodeError"],
    )
    assert b"words" not in b"".join(path.read_bytes() for path in list_files(folder))


def test_a_vector_is_not_kept(sampled: MakeSampled, folder: Path) -> None:
    ask(sampled("embedding"), (png(RED), {}))
    [image] = records(folder, 1)[0]["images"]
    assert image.keys() == {"outcome", "bytes", "format", "width", "height"}


def test_a_request_of_many_images_leaves_a_few(sampled: MakeSampled, folder: Path) -> None:
    ask(sampled(), several(*[png(RED)] * 50))
    [record] = records(folder, 1)
    assert (record["count"], len(record["images"])) == (50, MOST_IMAGES)


def test_an_image_of_many_detections_leaves_the_best(
    sampled: MakeSampled, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vision_serving.worker.sample_records.MOST_SCORES", 1)
    ask(sampled("detection", share=1.0), (png(RED), {"X-Inference-Options": "score_threshold=0.01"}))
    [image] = records(folder, 1)[0]["images"]
    assert (image["detections"], len(image["scores"])) == (2, 1)


def test_a_share_of_the_requests_is_kept_by_chance(sampled: MakeSampled, folder: Path) -> None:
    handler = sampled(share=0.5)
    for _ in range(40):
        ask(handler, *[(png(RED), {})] * 8)
        assert wait_until(handler.sampler._waiting.empty, PATIENCE_S)
    ask(handler, (png(RED), {}))
    assert 100 < len(records(folder, 100)) < 220  # of 320; a hundred million to one for a fair coin


def test_without_a_share_there_is_neither_a_thread_nor_a_folder(make_handler: MakeHandler, folder: Path) -> None:
    before = count_writers()
    ask(make_handler("classification"), (png(RED), {}))
    assert count_writers() == before
    assert not folder.exists()


def test_pictures_are_kept_as_they_came_only_where_they_are_asked_for(sampled: MakeSampled, folder: Path) -> None:
    sent = encode_image(solid_image(BLUE), "JPEG")
    ask(sampled(), (sent, {}))
    records(folder, 1)
    assert not (folder / PICTURES).exists()
    ask(sampled(pictures=True), (sent, {}), (b"no image", {}))
    named = [image["picture"] for record in records(folder, 3) for image in record["images"] if "picture" in image]
    [kept] = (folder / PICTURES).glob("*/*")
    assert [kept.name] == named
    assert kept.suffix == ".jpg"
    assert kept.read_bytes() == sent


def test_the_archives_own_picture_is_a_probe_and_no_sample(sampled: MakeSampled, folder: Path) -> None:
    handler = sampled(golden=png(GREEN))
    ask(handler, (png(GREEN), {}), (png(RED), {}), (png(GREEN), {}))
    [record] = records(folder, 1)
    assert record["images"][0]["scores"][0][0] == 0


def test_a_folder_that_cannot_be_written_costs_no_answer_and_one_line(
    sampled: MakeSampled, folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "PAUSE_S", 0.0)
    folder.parent.parent.mkdir(exist_ok=True)
    folder.parent.write_bytes(b"")  # a file in the place of the folder
    handler = sampled()
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            assert b"classes" in ask(handler, (png(RED), {}))[0]
        assert wait_until(lambda: bool(caplog.records) and handler.sampler._waiting.empty(), PATIENCE_S)
        folder.parent.unlink()
        ask(handler, (png(RED), {}))
        records(folder, 1)
        assert wait_until(lambda: len(caplog.records) > 1, PATIENCE_S)
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith(f"no predictions are sampled in {folder}: ")
    assert first.endswith("predictions go on, and sampling is tried again each minute")
    assert second == f"predictions are sampled again in {folder}"


def test_after_a_failure_it_is_tried_again_only_after_a_pause(sampled: MakeSampled, folder: Path) -> None:
    folder.parent.write_bytes(b"")
    handler = sampled()
    ask(handler, (png(RED), {}))
    assert wait_until(lambda: handler.sampler._rests_until > 0, PATIENCE_S)
    folder.parent.unlink()
    ask(handler, (png(RED), {}))
    assert handler.sampler._waiting.empty()


def test_a_disk_that_hangs_lets_samples_go_and_no_answer_waits(
    sampled: MakeSampled, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler, hangs = sampled(), threading.Event()
    monkeypatch.setattr(handler.sampler._files, "append", lambda *_: hangs.wait(PATIENCE_S))
    for _ in range(20):
        assert len(ask(handler, *[(png(RED), {})] * 8)) == 8
    assert handler.sampler._waiting.full()
    hangs.set()


def test_the_pictures_that_wait_have_a_bound_of_bytes(
    sampled: MakeSampled, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "MOST_WAITING_BYTES", 2 * len(png(RED)))
    handler, hangs = sampled(), threading.Event()
    monkeypatch.setattr(handler.sampler._files, "append", lambda *_: hangs.wait(PATIENCE_S))
    for _ in range(5):
        ask(handler, (png(RED), {}))
    assert handler.sampler._given == 2 * len(png(RED))
    hangs.set()
    assert wait_until(lambda: handler.sampler._done == handler.sampler._given, PATIENCE_S)


def test_settings_that_cannot_be_read_sample_nothing_and_are_a_line(
    make_handler: MakeHandler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = tmp_path / "config.properties"
    config.write_text('models={"colours": {"1.0": {"sample_share": "half"}}}\n')
    monkeypatch.setenv("VISION_SERVING_CONFIG", str(config))
    handler = make_handler("classification")
    with caplog.at_level(logging.ERROR):
        handler.sampler = Sampler.of(MODEL, tmp_path, handler.config)
    assert "sample_share: expected a number from 0" in caplog.text
    assert ask(handler, (png(RED), {}))
