import re

import pytest

from vision_serving.timings import StageTimings


def test_a_stage_that_runs_twice_is_added_up() -> None:
    timings = StageTimings()
    for _ in range(2):
        with timings.measure("decode"):
            pass
    assert list(timings.milliseconds) == ["decode"]


def test_a_stage_that_fails_is_still_timed() -> None:
    timings = StageTimings()
    with pytest.raises(KeyError), timings.measure("inference"):
        raise KeyError
    assert timings.milliseconds["inference"] >= 0


def test_server_timing_has_the_form_of_the_w3c() -> None:
    timings = StageTimings()
    timings.milliseconds = {"decode": 1.5, "inference": 20.0}
    assert timings.server_timing() == "decode;dur=1.50, inference;dur=20.00"
    assert re.fullmatch(r"(\w+;dur=[\d.]+(, )?)*", timings.server_timing())
