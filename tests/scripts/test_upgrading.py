from pathlib import Path

import pytest

from mar_tools.server_metrics import Counts, read_counts
from mar_tools.upgrade_properties import advise, name_version
from mar_tools.upgrading import Plan, Upgraded, find_too_many_failures
from vision_serving.resources import read_model, read_properties

METRICS = """# HELP Requests2XX Torchserve prometheus counter metric with unit: Count
# TYPE Requests2XX counter
Requests2XX{Level="Host",Hostname="vm",} 90.0
Requests4XX{Level="Host",Hostname="vm",} 3.0
Requests5XX{Level="Host",Hostname="vm",} 1.0
ts_inference_requests_total{model_name="digits",model_version="default",hostname="vm",} 1.2E1
ts_inference_requests_total{model_name="digits",model_version="1.0",hostname="vm",} 8.0
"""
PLAN = Plan(
    "digits",
    "2.0",
    Path("/store/digits_2.mar"),
    {
        "modelVersion": "1.0",
        "modelUrl": "digits.mar",
        "minWorkers": 1,
        "maxWorkers": 4,
        "batchSize": 8,
        "maxBatchDelay": 2,
    },
    2,
)
PROPERTIES = """# how this machine serves
load_models=digits.mar,other.mar
models={\\
  "digits": {"1.0": {"marName": "digits.mar", "threads": 3, "minWorkers": 1}},\\
  "other": {"1.0": {"minWorkers": 1}}\\
}
"""


def counts(requests: float, failed: float) -> Counts:
    return Counts({("digits", "default"): requests}, failed)


def test_requests_are_counted_by_version_and_failures_of_all() -> None:
    found = read_counts(METRICS)
    assert found == Counts({("digits", "default"): 12.0, ("digits", "1.0"): 8.0}, 4.0)
    assert found.since(Counts({("digits", "1.0"): 5.0}, 1.0)) == Counts(
        {("digits", "default"): 12.0, ("digits", "1.0"): 3.0}, 3.0
    )
    assert read_counts("") is None


@pytest.mark.parametrize(
    ("before", "during", "bad"),
    [
        (counts(0, 0), counts(100, 0), False),
        (counts(0, 0), counts(100, 2), False),
        (counts(0, 0), counts(100, 3), True),
        (counts(1000, 100), counts(100, 11), False),
        (counts(1000, 100), counts(100, 13), True),
        (counts(0, 0), counts(0, 5), True),
        (counts(0, 0), counts(0, 0), False),
    ],
    ids=["none", "chance", "too many", "as before", "more than before", "without a request", "no traffic"],
)
def test_a_version_is_no_good_when_clearly_more_answers_fail_than_before(
    before: Counts, during: Counts, bad: bool
) -> None:
    assert (find_too_many_failures(before, during, 0.02) is not None) == bad


def test_what_lasts_is_the_new_version_with_the_settings_of_the_old_one() -> None:
    text = name_version(PROPERTIES, PLAN)
    section = {"minWorkers": 2, "maxWorkers": 4, "batchSize": 8, "maxBatchDelay": 2, "threads": 3}
    assert read_model(text, "digits") == {"2.0": {"defaultVersion": True, "marName": "digits_2.mar", **section}}
    assert read_model(text, "other") == {"1.0": {"minWorkers": 1}}
    assert read_properties(text)["load_models"] == "digits_2.mar,other.mar"
    assert text.startswith("# how this machine serves\n")


@pytest.mark.parametrize(
    ("properties", "written", "expected"),
    [
        ("load_models=all", True, ["move digits.mar away"]),
        ("load_models=all", False, ['"marName": "digits_2.mar"', "move digits.mar away"]),
        ("load_models=digits_2.mar", True, []),
    ],
)
def test_what_is_left_to_do_is_told(tmp_path: Path, properties: str, written: bool, expected: list[str]) -> None:
    config = tmp_path / "config.properties"
    config.write_text(properties)
    advice = list(advise(config, Upgraded(PLAN, "right", None), written))
    assert len(advice) == len(expected)
    assert all(part in line for part, line in zip(expected, advice, strict=True))
