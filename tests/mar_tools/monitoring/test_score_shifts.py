"""The metric of shifted scores, of a worker that is there: when it is shown, when it is not, and what fails."""

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import orjson
import pytest

from mar_tools.monitoring.score_shifts import ScoreShifts
from vision_serving.worker.sample_files import SampleFiles
from vision_serving.worker.sample_settings import SampleBounds

VERSIONS = ("digits", "1.0")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """An archive as TorchServe unpacked it, whose scores were high."""
    folder = tmp_path / "unpacked"
    folder.mkdir()
    handler = (
        "{task: classification, backend: eager, artifact: a, preprocessing: {resize: {mode: exact, size: [8, 8]}}}"
    )
    (folder / "model-config.yaml").write_text(f"handler: {handler}\n")
    (folder / "labels.json").write_text('["one", "two"]')
    told = {"all_classes": False, "images": 300, "scores": {"0.98-0.99": 200.0, "0.99-1": 100.0}}
    (folder / "verification.json").write_text(json.dumps({"distributions": told}))
    return folder


@pytest.fixture
def versions(archive: Path) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """What the management API says of a version whose worker runs in the folder of its archive."""
    with subprocess.Popen([sys.executable, "-c", "input()"], cwd=archive, stdin=subprocess.PIPE) as worker:
        yield [("digits", {"modelVersion": "1.0", "workers": [{"pid": worker.pid}]})]
        worker.kill()


@pytest.fixture
def shifts(tmp_path: Path) -> ScoreShifts:
    config = tmp_path / "config.properties"
    config.write_text("")
    return ScoreShifts(config)


def write(tmp_path: Path, score: float, count: int) -> None:
    files = SampleFiles(tmp_path / "samples" / "digits", SampleBounds())
    image = {"outcome": "predicted", "bytes": 1, "format": "PNG", "width": 1, "height": 1, "scores": [[0, score]]}
    now = datetime.now(timezone.utc).isoformat()
    record = {"time": now, "version": "1.0", "own_options": False, "count": 1, "images": [image]}
    for _ in range(count):
        files.append(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
    files.close()


def shown(shifts: ScoreShifts) -> dict[str, float]:
    [family] = shifts.show()
    return {sample.labels["version"]: sample.value for sample in family.samples}


def test_a_shift_is_shown_and_follows_the_newest_samples(
    shifts: ScoreShifts, versions: list[tuple[str, dict[str, Any]]], tmp_path: Path
) -> None:
    write(tmp_path, 0.985, 200)
    write(tmp_path, 0.995, 100)
    shifts.learn(versions)
    assert shown(shifts)["1.0"] < 0.05
    write(tmp_path, 0.3, 300)
    shifts.learn(versions)
    assert 0.4 < shown(shifts)["1.0"] < 0.9
    write(tmp_path, 0.3, 1000)
    shifts.learn(versions)
    assert shown(shifts)["1.0"] == pytest.approx(1)


def test_nothing_is_shown_without_samples_or_with_few(
    shifts: ScoreShifts, versions: list[tuple[str, dict[str, Any]]], tmp_path: Path
) -> None:
    shifts.learn(versions)
    assert shown(shifts) == {}
    write(tmp_path, 0.3, 10)
    shifts.learn(versions)
    assert shown(shifts) == {}


def test_a_version_that_is_no_longer_served_is_shown_no_more(
    shifts: ScoreShifts, versions: list[tuple[str, dict[str, Any]]], tmp_path: Path
) -> None:
    write(tmp_path, 0.3, 100)
    shifts.learn(versions)
    assert shown(shifts)
    shifts.learn([])
    assert shown(shifts) == {}
    shifts.learn(versions)
    assert shown(shifts)


def test_an_archive_that_was_built_before_is_one_line_and_no_failure(
    shifts: ScoreShifts,
    versions: list[tuple[str, dict[str, Any]]],
    archive: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (archive / "verification.json").write_text("{}")
    for _ in range(2):
        write(tmp_path, 0.3, 100)
        shifts.learn(versions)
    assert shown(shifts) == {}
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith("digits 1.0: it does not say how its verification's answers are distributed; build it again")


def test_what_fails_is_told_by_the_page_and_not_by_the_thread(
    shifts: ScoreShifts, versions: list[tuple[str, dict[str, Any]]], tmp_path: Path
) -> None:
    write(tmp_path, 0.3, 100)
    [file] = (tmp_path / "samples" / "digits").glob("*.jsonl")
    file.unlink()
    file.mkdir()  # a folder in its place cannot be read
    shifts.learn(versions)
    with pytest.raises(IsADirectoryError):
        shifts.show()


def test_old_samples_go_though_no_worker_writes(shifts: ScoreShifts, tmp_path: Path) -> None:
    folder = tmp_path / "samples" / "gone"
    folder.mkdir(parents=True)
    (folder / "1000-1.jsonl").write_bytes(b"{}\n")
    shifts.learn([])
    assert list(folder.glob("*.jsonl")) == []
