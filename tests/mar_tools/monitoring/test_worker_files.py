"""Counts of workers that have ended are kept, once each, whenever the exporter itself is killed."""

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from mar_tools.monitoring import worker_files
from mar_tools.monitoring.worker_files import JOURNAL, WorkerFiles
from vision_serving.answers.responses import ModelIdentity
from vision_serving.worker import metrics
from vision_serving.worker.metrics import WorkerMetrics

IMAGES = "vision_images_total"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(metrics.METRICS_FOLDER, str(tmp_path))
    return tmp_path


def start_worker(images: int) -> WorkerMetrics:
    worker = WorkerMetrics.of(ModelIdentity("digits", "1.0"))
    worker._count("vision_images", (("outcome", "predicted"),), images)
    worker._observe("vision_batch_size", (), images, metrics.SIZES)
    worker._write()
    return worker


def end(worker: WorkerMetrics) -> None:
    """Let go of its files, as the kernel does for a process that ends."""
    assert worker._files is not None
    for file in worker._files.values():
        file._lock.close()


def read(folder: Path) -> tuple[float, float]:
    """Return the images, and the batches' sizes."""
    samples = [sample for family in WorkerFiles(folder).read() for sample in family.samples]
    return tuple(sum(each.value for each in samples if each.name == name) for name in (IMAGES, "vision_batch_size_sum"))  # type: ignore[return-value]


def test_files_of_workers_that_ended_become_one(folder: Path) -> None:
    alive, expected = start_worker(1), 1
    for images in range(2, 12):
        worker = start_worker(images)
        expected += images
        assert read(folder) == (expected, expected)
        end(worker)
        assert read(folder) == (expected, expected)
    assert len(list(folder.glob("*.db"))) <= 2 * 3, "the living, one that has ended, and the sums"
    end(alive)


def test_an_exporter_that_is_killed_at_any_step_counts_nothing_twice(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for images in (1, 2, 3):
        end(start_worker(images))

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for place in ("WorkerFiles._write_sums", "os.replace"):
        with monkeypatch.context() as patch:
            patch.setattr(f"{worker_files.__name__}.{place}", killed)
            with pytest.raises(KeyboardInterrupt):
                read(folder)
        assert not (folder / JOURNAL).exists()
    with monkeypatch.context() as patch:
        replace = os.replace

        def replace_and_be_killed(*paths: str) -> None:
            replace(*paths)
            raise KeyboardInterrupt

        patch.setattr(f"{worker_files.__name__}.os.replace", replace_and_be_killed)
        with pytest.raises(KeyboardInterrupt):
            read(folder)
    assert (folder / JOURNAL).exists()
    assert read(folder) == read(folder) == (6, 6)
    assert len(list(folder.glob("*.db"))) == 2, "the sums alone"


def test_a_file_that_is_just_being_made_is_left_alone(folder: Path) -> None:
    for images in (1, 2):
        end(start_worker(images))
    empty = folder / "counter_1-1.db"
    empty.touch()
    assert read(folder) == (3, 3)
    assert empty.exists()


def test_two_hundred_workers_that_ended_leave_the_sums_alone(folder: Path) -> None:
    for number in range(1, 201):
        end(start_worker(1))
        assert read(folder) == (number, number)
    assert len(list(folder.glob("*.db"))) <= 2 * 2
    assert (folder / JOURNAL).stat().st_size < 1000


DAMAGE = {
    "gone": None,
    "cut to a byte": lambda content: content[:1],
    "cut within a value": lambda content: content[:1000],
    "overwritten": lambda content: content[:8] + b"\x7f" * 3000,
    "of a negative length": lambda content: b"\xff" * 3000,
    "no JSON": lambda content: content[:12] + b"{" + content[13:],
    "no number": lambda content: content.replace(struct.pack("d", 4.0), struct.pack("d", float("nan"))),
    "another's": lambda content: b"not of a worker",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("has_ended", [False, True])
def test_a_damaged_file_costs_its_own_counts_alone_and_is_named(
    folder: Path, damage: Callable[[bytes], bytes] | None, has_ended: bool
) -> None:
    kept = start_worker(3)
    others = set(folder.glob("*.db"))
    worker = start_worker(4)
    new = sorted(set(folder.glob("*.db")) - others)
    if has_ended:
        end(worker)
    for path in new:
        path.unlink() if damage is None else path.write_bytes(damage(path.read_bytes()))
    files = WorkerFiles(folder)
    files.read()
    assert set(files.damaged) == (set() if damage is None else {path.name for path in new})
    assert read(folder) == (3, 3)
    if has_ended:
        for images in (5, 6, 7):
            end(start_worker(images))
        assert read(folder) == (21, 21)
        files.read()
        assert set(files.damaged) == (set() if damage is None else {path.name for path in new}), "it stays told"
    end(kept)


@pytest.mark.parametrize("damage", [b"", b'{"su', b"[]", b'{"sums": [], "included": 3}', b"\xff"])
def test_a_damaged_journal_loses_no_count(folder: Path, damage: bytes) -> None:
    for images in (1, 2, 3):
        end(start_worker(images))
        read(folder)
    (folder / JOURNAL).write_bytes(damage)
    files = WorkerFiles(folder)
    files.read()
    assert list(files.damaged) == [JOURNAL]
    assert read(folder) == (6, 6)


def test_a_full_disk_ends_no_exporter_and_costs_no_count(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for images in (1, 2, 3):
        end(start_worker(images))

    def fail(*_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(f"{worker_files.__name__}.os.posix_fallocate", fail)
        assert read(folder) == read(folder) == (6, 6)
        assert not list(folder.glob("*sums*"))
    assert read(folder) == (6, 6)
    assert len(list(folder.glob("*.db"))) == 2
