"""What people read of measures: words, and bounds that hold or do not."""

import pytest

from mar_tools.measures import judge_measure, name_measure
from mar_tools.verification.accuracy import PRIMARY
from mar_tools.verification.bounds import DEFAULT_BOUNDS


@pytest.mark.parametrize("name", [bound[4:] for bound in DEFAULT_BOUNDS["fp32"]] + [*PRIMARY, *PRIMARY.values()])
def test_no_measure_is_called_by_its_key(name: str) -> None:
    words = name_measure(name)
    assert "_" not in words
    assert words in ("accuracy", "matched labels", "matched boxes") or words != name


@pytest.mark.parametrize(
    ("name", "value", "asked", "met"),
    [
        ("accuracy", 0.7, "≥ 0.9", False),
        ("accuracy", 0.95, "≥ 0.9", True),
        ("accuracy_drop", 0.3, "≤ 0.02", False),
        ("accuracy_drop", -0.1, "≤ 0.02", True),
        ("compared_boxes", 12, "", None),
        ("snr_db", None, "≥ 10, ≤ 90", False),
        ("snr_db", 100.0, "≥ 10, ≤ 90", False),
        ("snr_db", 90.0, "≥ 10, ≤ 90", True),
    ],
)
def test_a_measure_is_judged_by_its_own_bounds(name: str, value: float, asked: str, met: bool | None) -> None:
    bounds = {"min_accuracy": 0.9, "max_accuracy_drop": 0.02, "min_snr_db": 10.0, "max_snr_db": 90.0}
    assert judge_measure(name, value, bounds) == (asked, met)
