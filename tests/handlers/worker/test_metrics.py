"""What a worker counts, as a reader of `prometheus_client` sums it; and that counting costs no answer."""

import logging
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeHandler
from fakes import RED, new_context, png
from prometheus_client.multiprocess import MultiProcessCollector

from vision_serving.answers.responses import ModelIdentity
from vision_serving.worker import metrics
from vision_serving.worker.metrics import FILE_BYTES, SECONDS, WorkerMetrics

MODEL = ModelIdentity("colours", "1.0")
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "metrics"
    folder.mkdir()
    monkeypatch.setenv(metrics.METRICS_FOLDER, str(folder))
    return folder


def read(folder: Path) -> Samples:
    families = MultiProcessCollector.merge([str(path) for path in folder.glob("*.db")])  # type: ignore[no-untyped-call]
    found = [sample for family in families for sample in family.samples]
    return {(each.name, frozenset(each.labels.items())): each.value for each in found if each.value}


def total(samples: Samples, name: str, **labels: str) -> float:
    return sum(
        value for (found, given), value in samples.items() if found == name and labels.items() <= dict(given).items()
    )


def test_a_batch_is_counted_by_what_came_of_each_request(make_handler: MakeHandler, folder: Path) -> None:
    handler = make_handler("classification")
    handler.metrics = WorkerMetrics.of(MODEL)
    rows: list[dict[str, Any]] = [{"body": png(RED)}, {"body": b"no image"}, {"body": png(RED)}]
    handler.handle(rows, new_context(folder, [{} for _ in rows]))
    samples = read(folder)
    assert total(samples, "vision_requests_total", status="200", error="") == 2
    assert total(samples, "vision_requests_total", status="400", error="ImageDecodeError") == 1
    assert total(samples, "vision_images_total", outcome="predicted") == 2
    assert total(samples, "vision_batch_size_sum", model="colours", version="1.0") == 3
    assert total(samples, "vision_batch_size_count") == total(samples, "vision_batch_duration_seconds_count") == 1
    assert total(samples, "vision_stage_duration_seconds_count", stage="inference") == 1


def test_a_time_at_a_bound_is_in_its_bucket_and_all_are_in_the_last(folder: Path) -> None:
    counted = WorkerMetrics.of(MODEL)
    for seconds in (SECONDS[0], SECONDS[-1], 99.0):
        counted._observe("vision_batch_duration_seconds", (), seconds, SECONDS)
    counted._write()
    samples = read(folder)
    name = "vision_batch_duration_seconds_bucket"
    assert total(samples, name, le="0.0005") == 1
    assert total(samples, name, le="10.0") == 2
    assert total(samples, name, le="+Inf") == total(samples, "vision_batch_duration_seconds_count") == 3


@pytest.mark.parametrize("breaks", ["before", "during"])
def test_a_worker_that_cannot_count_answers_and_says_so_once(
    make_handler: MakeHandler, folder: Path, caplog: pytest.LogCaptureFixture, breaks: str
) -> None:
    handler = make_handler("classification")
    with caplog.at_level(logging.ERROR):
        if breaks == "before":
            folder.rmdir()
        handler.metrics = WorkerMetrics.of(MODEL)
        if breaks == "during":
            assert handler.metrics._files is not None
            handler.metrics._files["counter"]._lock.close()
        for _ in range(3):
            assert handler.handle([{"body": png(RED)}], new_context(folder, [{}]))
    assert len([record for record in caplog.records if "for metrics" in record.getMessage()]) == 1


def test_without_a_folder_nothing_is_written() -> None:
    assert WorkerMetrics.of(MODEL)._files is None


def test_without_prometheus_client_a_worker_counts_nothing(folder: Path) -> None:
    code = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "from vision_serving.worker.metrics import ModelIdentity, WorkerMetrics\n"
        "assert WorkerMetrics.of(ModelIdentity('a', '1'))._files is None"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize("name", ["colours", "x" * 3000, 'a"\\\n\u2028\u00f6{}'], ids=["short", "long", "odd"])
def test_labels_without_end_are_dropped_and_no_file_grows(folder: Path, name: str) -> None:
    counted = WorkerMetrics.of(ModelIdentity(name, "1.0"))
    for number in range(3000):
        counted._count("vision_images", (("outcome", f"Error{number}"),), 1)
        counted._count("vision_worker_starts", (), 1)
    counted._write()
    samples = read(folder)
    assert 0 < total(samples, "vision_images_total", model=name) < 1000
    assert total(samples, "vision_worker_starts_total", model=name) == 3001
    assert {path.stat().st_size for path in folder.glob("*.db")} == {FILE_BYTES}


@pytest.mark.parametrize("damage", [b"", b"\xff" * 5000, bytes(FILE_BYTES)], ids=["cut", "overwritten", "zeros"])
def test_a_file_that_is_damaged_ends_no_worker_and_is_mended_by_the_next_batch(
    make_handler: MakeHandler, folder: Path, damage: bytes
) -> None:
    handler = make_handler("classification")
    handler.metrics = WorkerMetrics.of(MODEL)
    for _ in range(2):
        handler.handle([{"body": png(RED)}], new_context(folder, [{}]))
        for path in folder.glob("*.db"):
            path.write_bytes(damage)
    handler.handle([{"body": png(RED)}], new_context(folder, [{}]))
    assert total(read(folder), "vision_requests_total", status="200") == 3


def test_a_worker_without_room_on_the_disk_leaves_no_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vision_serving.worker.metrics.os.posix_fallocate", fail)
    assert WorkerMetrics.of(MODEL)._files is None
    assert list(folder.iterdir()) == []


def test_the_time_in_the_queue_is_what_the_front_says_where_it_can_be(make_handler: MakeHandler, folder: Path) -> None:
    handler = make_handler("classification")
    handler.metrics = WorkerMetrics.of(MODEL)
    now = time.time()
    sent = [f"t={now - 1.5:.3f}", f"t={now + 60:.3f}", "t=nan", "t=1e400", f"{now:.3f}", "t=0", "t=", "t=\u0661"]
    headers: list[dict[str, Any]] = [{"X-REQUEST-START": text} for text in sent]
    rows: list[dict[str, Any]] = [{"body": png(RED)} for _ in range(len(sent) + 2)]
    handler.handle(rows, new_context(folder, [*headers, {}, {"x-request-start": {"content-type": "a/b"}}]))
    samples = read(folder)
    assert total(samples, "vision_request_queue_seconds_count") == 1
    assert 1.5 <= total(samples, "vision_request_queue_seconds_sum") < 1.5 + time.time() - now


def test_a_process_in_the_place_of_another_is_a_restart(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["worker", "--sock-name", "/tmp/.ts.sock.9000"])
    WorkerMetrics.of(MODEL)
    assert total(read(folder), "vision_worker_restarts_total") == 0
    WorkerMetrics.of(MODEL)
    monkeypatch.setattr(sys, "argv", ["worker", "--sock-name", "/tmp/.ts.sock.9001"])
    WorkerMetrics.of(MODEL)
    samples = read(folder)
    assert total(samples, "vision_worker_restarts_total") == 1
    assert total(samples, "vision_worker_starts_total") == 3
