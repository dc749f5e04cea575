"""The command from samples and archive to tables, JSON and a picture; and what it says where it cannot."""

import io
import json
import re
import zipfile
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from conftest import RunHere

from mar_tools.archives.zip_form import write_archive
from mar_tools.command_line import ROOT
from mar_tools.drift.reference import read_archive_reference
from mar_tools.drift.samples import list_records, read_samples
from vision_serving.worker.sample_files import SampleFiles
from vision_serving.worker.sample_settings import SampleBounds

Compare = Callable[..., Any]
NOW = datetime.now(timezone.utc)


def image_of(class_id: int, score: float, **changes: Any) -> dict[str, Any]:
    return {
        "outcome": "predicted", "bytes": 9, "format": "JPEG", "width": 96, "height": 90,
        "scores": [[class_id, score], [11, 0.001]], **changes,
    }  # fmt: skip


def record_of(*images: dict[str, Any], **changes: Any) -> dict[str, Any]:
    record = {"time": NOW.isoformat(), "id": "", "model": "digits", "version": "1.0", "status": 200}
    return {**record, "own_options": False, "count": len(images), "images": list(images), **changes}


def write(folder: Path, *records: dict[str, Any]) -> None:
    files = SampleFiles(folder, SampleBounds())
    for record in records:
        files.append(json.dumps(record).encode() + b"\n")
    files.close()


@pytest.fixture
def samples(archives: Path, tmp_path: Path) -> Path:
    """The folder of the samples of digits, of a server that does not run."""
    (tmp_path / "config.properties").write_text(f"model_store={archives}\n")
    return tmp_path / "samples" / "digits"


@pytest.fixture
def compare(samples: Path, run_here: RunHere) -> Compare:
    def call(*arguments: object) -> Any:
        return run_here("compare_traffic.py", *arguments, "--config", samples.parents[1] / "config.properties")

    return call


def like_the_verification(archives: Path) -> list[dict[str, Any]]:
    """Requests whose classes and scores are distributed as those of the verification."""
    parts = read_archive_reference(archives / "digits.mar").distributions.parts
    ends = [(float(name.partition("-")[2]), round(count)) for name, count in parts["scores"].items()]
    scores = [end for end, count in ends for _ in range(count)]
    classes = [int(name) for name, count in parts["classes"].items() for _ in range(round(count))]
    return [record_of(image_of(*pair)) for pair in zip(classes, scores, strict=True)]


def test_traffic_like_the_verification_is_alike(compare: Compare, samples: Path, archives: Path) -> None:
    write(samples, *like_the_verification(archives) * 3)
    found = json.loads(compare("digits", "--json").stdout)
    assert not found["shifted"]
    assert {part["verdict"] for part in found["parts"].values()} == {"alike"}
    assert (found["model"], found["version"], found["images"], found["failed"]) == ("digits", "1.0", 600, 0)
    assert found["parts"]["scores"]["distance"] == pytest.approx(0, abs=1e-6)


def test_other_traffic_is_shifted_and_drawn(compare: Compare, samples: Path, tmp_path: Path) -> None:
    write(samples, *[record_of(image_of(number % 2, 0.3, format="PNG", width=2000)) for number in range(100)])
    finished = compare("digits", "--output", tmp_path / "drawn")
    assert finished.returncode == 0, finished.stderr
    assert len(re.findall(r"^\w.* shifted$", finished.stdout, re.MULTILINE)) == 4
    assert max(map(len, finished.stdout.splitlines())) <= max(80, len(str(tmp_path / "drawn" / "digits-1.0.png")))
    with PIL.Image.open(tmp_path / "drawn" / "digits-1.0.png") as picture:
        assert picture.width > 1000
    assert "verification" in (tmp_path / "drawn" / "digits-1.0.svg").read_text(encoding="utf-8")


def test_few_samples_say_nothing(compare: Compare, samples: Path) -> None:
    write(samples, *[record_of(image_of(1, 0.3))] * 10)
    found = json.loads(compare("digits", "--json").stdout)
    assert not found["shifted"]
    assert found["parts"]["scores"]["verdict"] == "too few to say"


def test_errors_and_own_options_are_counted_and_not_compared(compare: Compare, samples: Path) -> None:
    failed = {"outcome": "ImageDecodeError", "bytes": 9, "format": None, "width": None, "height": None}
    write(
        samples, record_of(failed, status=400), record_of(image_of(1, 0.9), own_options=True), record_of(image_of(2, 1))
    )  # fmt: skip
    finished = compare("digits")
    assert "images with an error: 33.3 % (1 ImageDecodeError)" in finished.stdout
    assert "1 requests chose thresholds or classes themselves" in finished.stdout
    assert json.loads(compare("digits", "--json").stdout)["parts"]["scores"]["sampled_images"] == 1


def test_only_what_is_new_enough_and_of_the_version_counts(compare: Compare, samples: Path) -> None:
    old = (NOW - timedelta(hours=3)).isoformat()
    write(
        samples, record_of(image_of(1, 1), time=old), record_of(image_of(1, 1)), record_of(image_of(1, 1), version="9")
    )
    assert json.loads(compare("digits", "--version", "1.0", "--json").stdout)["requests"] == 2
    assert json.loads(compare("digits", "--version", "1.0", "--since", "2h", "--json").stdout)["requests"] == 1
    assert compare("digits", "--since", "yesterday").returncode == 2


def test_a_model_without_samples_gets_the_advice_that_fits_it(compare: Compare, samples: Path) -> None:
    config = samples.parents[1] / "config.properties"
    models = {"digits": {"1.0": {"sample_share": 1.0}}, "birds": {"1.0": {}}}
    config.write_text(f"{config.read_text()}models={json.dumps(models)}\n")
    asked = "give it a `sample_share` in `models` of config.properties, restart, and wait for requests"
    advice = {
        "digitz": "did you mean 'digits'?",
        "digits": "it has a `sample_share`: restart if that is new, and wait for requests",
        "birds": asked,
        "others": asked,
    }
    for model, told in advice.items():
        finished = compare(model)
        assert (finished.returncode, finished.stderr.strip().partition(f"no samples of {model}; ")[2]) == (1, told)


def test_a_torn_or_foreign_line_is_left_out(samples: Path) -> None:
    write(samples, record_of(image_of(1, 1)))
    [path] = samples.glob("*.jsonl")
    path.write_bytes(b'[1]\n"a"\n{"time": 5}\n\xff\n' + path.read_bytes() + b'{"time": "20')
    assert len(list(list_records(samples))) == 1


def test_the_newest_images_come_first_and_no_more_than_asked_for(samples: Path) -> None:
    write(samples, *[record_of(image_of(number, 1)) for number in range(10)])
    found = read_samples(samples, "1.0", False, most_images=3)
    assert found.distributions.parts["classes"].keys() == {"7", "8", "9"}


@pytest.mark.parametrize(
    ("arguments", "version", "message"),
    [
        (
            ["nothing"],
            "1.0",
            r"samples/nothing: no samples of nothing; give it a `sample_share` in `models`",
        ),
        (["digits"], "7.0", r"no archive of digits 7\.0 in it; name one with --archive"),
        (["digits", "--archive", "gone.mar"], "1.0", r"gone\.mar: no such archive"),
    ],
)
def test_what_is_not_there_is_one_line(
    compare: Compare, samples: Path, arguments: list[str], version: str, message: str
) -> None:
    write(samples, record_of(image_of(1, 1), version=version))
    finished = compare(*arguments)
    assert finished.returncode == 1
    assert re.search(message, finished.stderr)
    assert finished.stderr.count("\n") == 1


def test_an_archive_that_was_built_before_is_one_line_that_says_so(
    compare: Compare, samples: Path, archives: Path, tmp_path: Path
) -> None:
    write(samples, record_of(image_of(1, 1)))
    with zipfile.ZipFile(archives / "digits.mar") as packed:
        contents = {name: packed.read(name) for name in packed.namelist()}
    report = json.loads(contents["verification.json"])
    del report["distributions"]
    write_archive({**contents, "verification.json": json.dumps(report).encode()}, tmp_path / "old.mar")
    finished = compare("digits", "--archive", tmp_path / "old.mar")
    assert finished.returncode == 1
    assert "old.mar: it does not say how its verification's answers are distributed; build it again" in finished.stderr


def test_help_waits_for_no_package() -> None:
    source = io.StringIO((ROOT / "scripts" / "compare_traffic.py").read_text(encoding="utf-8")).getvalue()
    top = source[: source.index("def main")]
    assert not re.search(r"^(?:from|import) (?:torch|scipy|numpy|mar_tools\.drift)", top, re.MULTILINE)
