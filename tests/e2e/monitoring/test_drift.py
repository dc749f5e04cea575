"""Traffic like the verification moves the metric of shifted scores little, and photographs of no digits move it far."""

import json
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from e2e.conftest import EXAMPLES, run_script
from e2e.test_requests import OCTETS
from mar_tools.drift.samples import list_records
from mar_tools.waiting import wait_until
from vision_serving.worker.sample_settings import samples_folder

from .conftest import Monitored

PATIENCE_S = 60


@pytest.fixture
def samples(monitored: Monitored) -> Path:
    """The folder of the samples of digits, whose earlier ones are deleted as the page says."""
    folder = samples_folder(monitored.service.folder / "config.properties") / "digits"
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def ask(monitored: Monitored, pictures: Iterable[Path], samples: Path) -> None:
    """Ask for each picture, and wait until all of their samples are written."""
    sent = [path.read_bytes() for path in pictures]
    before = len(list(list_records(samples)))
    with ThreadPoolExecutor(8) as pool:  # fewer than what may wait for a thread that writes
        answers = list(pool.map(lambda picture: monitored.service.post("digits", picture, OCTETS).status_code, sent))
    assert set(answers) == {200}
    assert wait_until(lambda: len(list(list_records(samples))) == before + len(sent), PATIENCE_S)


def compare(monitored: Monitored) -> dict[str, object]:
    config = monitored.service.folder / "config.properties"
    finished = run_script("compare_traffic.py", "digits", "--config", config, "--json")
    assert finished.returncode == 0, finished.stderr
    parts = json.loads(finished.stdout)["parts"]
    return {name: part["verdict"] for name, part in parts.items()}


def test_traffic_like_the_verification_is_alike_and_photographs_are_a_shift(
    monitored: Monitored, samples: Path
) -> None:
    shift = ("vision_score_shift", frozenset({("model", "digits"), ("version", "1.0")}))
    held_out = sorted((EXAMPLES / "digits_classification" / "heldout").rglob("*.jpg"))
    ask(monitored, held_out, samples)
    assert wait_until(lambda: monitored.scrape().values.get(shift, 1.0) < 0.1, PATIENCE_S, 0.5)
    assert compare(monitored)["scores"] == "alike"
    assert {path.stem.partition("-")[2] for path in samples.glob("*.jsonl")} == set(
        map(str, monitored.service.worker_pids("digits"))
    ), "both workers write"

    shutil.rmtree(samples)
    ask(monitored, [*(EXAMPLES / "photographs").glob("*.jpg")] * 2, samples)
    assert wait_until(lambda: monitored.scrape().values.get(shift, 0.0) > 0.2, PATIENCE_S, 0.5)
    assert compare(monitored)["scores"] == "shifted"
    assert monitored.scrape().get("vision_scrape_failed", part="samples") == 0
