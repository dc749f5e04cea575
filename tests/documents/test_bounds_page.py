"""The bounds that docs/use/recipes.md states are those of the gate, and each measure of accuracy has its floor."""

import re

import pytest

from mar_tools.building.table import ACCURACY
from mar_tools.command_line import ROOT
from mar_tools.models.recipes import TRUTH_OF_BOUND, VerificationRecipe
from mar_tools.verification.accuracy import PRIMARY
from mar_tools.verification.bounds import DEFAULT_BOUNDS, FLOORS
from vision_serving.config import Precision

ROWS = {
    "top-1 agreement, at least": "min_top1_agreement",
    "top-5 agreement, at least": "min_top5_agreement",
    "matched labels, at least": "min_matched_labels",
    "least cosine, at least": "min_cosine",
    "matched boxes, at least": "min_matched_boxes",
    "mean IoU, at least": "min_mean_iou",
    "least IoU, at least": "min_iou",
    "mean mask IoU, at least": "min_mean_mask_iou",
    "keypoint distance, at most": "max_keypoint_distance",
    "score difference, at most": "max_score_difference",
    "SNR in dB, at least": "min_snr_db",
    "accuracy drop, at most": "max_accuracy_drop",
}
COLUMNS: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8")


@pytest.fixture(scope="module")
def page() -> dict[str, list[str]]:
    lines = (ROOT / "docs" / "use" / "recipes.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return {row[0]: row[1:] for row in cells}


@pytest.mark.parametrize("row", ROWS)
def test_the_page_states_the_bounds_of_the_gate(page: dict[str, list[str]], row: str) -> None:
    stated = [None if cell == "-" else float(cell) for cell in page[row]]
    assert stated == [DEFAULT_BOUNDS[precision].get(ROWS[row]) for precision in COLUMNS]


def test_no_bound_is_missing_from_the_page() -> None:
    assert {bound for bounds in DEFAULT_BOUNDS.values() for bound in bounds} == set(ROWS.values())


def test_each_measure_that_tells_most_has_its_floor_and_its_heading() -> None:
    assert PRIMARY.keys() == ACCURACY.keys()
    assert {f"min_{floor}" for floor in PRIMARY.values()} == set(FLOORS)


def test_what_needs_the_truth_is_a_floor_or_has_a_default() -> None:
    assert set(TRUTH_OF_BOUND) - set(FLOORS) <= set(ROWS.values())


@pytest.mark.parametrize("key", VerificationRecipe.model_fields)
def test_the_page_names_each_key_of_a_verification(key: str) -> None:
    text = (ROOT / "docs" / "use" / "recipes.md").read_text(encoding="utf-8")
    block = next(block for block in text.split("```yaml\n") if block.startswith("verification:\n  images: heldout"))
    assert key in re.findall(r"\w+", block.partition("```")[0])
