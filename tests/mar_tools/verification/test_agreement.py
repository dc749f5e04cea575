import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

from mar_tools.exporting.signal_to_noise import score_profile, scores_snr_db, signal_to_noise_db
from mar_tools.models.recipes import VerificationRecipe
from mar_tools.verification.agreement import (
    choose_thresholds,
    match_boxes,
    match_labels,
    measure_boxes,
    measure_classes,
    measure_overlaps,
    measure_vectors,
    top_k_agreement,
)
from mar_tools.verification.bounds import DEFAULT_BOUNDS, RANDOM_BOUNDS, choose_bounds, find_failures
from mar_tools.verification.observations import Observation
from vision_serving.config import Precision
from vision_serving.errors import ConfigError
from vision_serving.results.postprocessing import Candidates

THRESHOLD = 0.5


def found(*rows: tuple[float, float, int]) -> Candidates:
    """Boxes of 10 x 10 from (left, score, class id)."""
    boxes = torch.tensor([[left, 0.0, left + 10, 10.0] for left, _, _ in rows]).reshape(-1, 4)
    scores, class_ids = (
        torch.tensor([row[1] for row in rows]),
        torch.tensor([row[2] for row in rows], dtype=torch.int64),
    )
    return Candidates(boxes, scores, class_ids)


CAT, DOG, UNSURE = (0.0, 0.9, 1), (50.0, 0.8, 2), (100.0, 0.52, 1)


@pytest.mark.parametrize(
    ("expected", "seen", "matched", "iou", "difference"),
    [
        (found(), found(), 1.0, 1.0, 0.0),
        (found(CAT), found(), 0.0, 1.0, 0.0),
        (found(), found(CAT), 0.0, 1.0, 0.0),
        (found(CAT, DOG), found(DOG, CAT), 1.0, 1.0, 0.0),
        (found(CAT, DOG), found(CAT), 2 / 3, 1.0, 0.0),
        (found(CAT), found((0.0, 0.9, 2)), 0.0, 1.0, 0.0),
        (found(CAT), found((0.0, 0.7, 1)), 1.0, 1.0, 0.2),
        (found(CAT), found((2.0, 0.9, 1)), 1.0, 8 / 12, 0.0),
        (found(CAT), found((5.0, 0.9, 1)), 0.0, 1.0, 0.0),
        (found(CAT, UNSURE), found(CAT), 1.0, 1.0, 0.0),
        (found(CAT), found(CAT, UNSURE), 1.0, 1.0, 0.0),
        (found(UNSURE), found(), 1.0, 1.0, 0.0),
        (found(CAT, (1.0, 0.8, 1)), found(CAT, (1.0, 0.8, 1)), 1.0, 1.0, 0.0),
        (found(CAT, CAT), found(CAT), 2 / 3, 1.0, 0.0),
    ],
    ids=["nothing", "lost", "invented", "another order", "one lost", "another class", "another score", "moved a little",
         "moved away", "unsure and lost", "unsure and invented", "only unsure", "close neighbours", "one for two"],
)  # fmt: skip
def test_boxes_are_paired_one_to_one_by_class_and_overlap(
    expected: Candidates, seen: Candidates, matched: float, iou: float, difference: float
) -> None:
    match = match_boxes(expected, seen, THRESHOLD)
    # 1e-6: the boxes and scores are float32
    assert match.paid == pytest.approx(matched * match.owed, abs=1e-6)
    assert min(match.ious, default=1.0) == pytest.approx(iou, abs=1e-6)
    assert max(match.score_differences, default=0.0) == pytest.approx(difference, abs=1e-6)


def test_overlaps_are_torchvisions_and_nothing_where_there_is_no_area() -> None:
    corners = torch.randint(0, 8, (2, 60, 2, 2), generator=torch.Generator().manual_seed(0)).float().sort(dim=2).values
    first, second = corners.flatten(2)
    expected = box_iou(first, second)
    assert expected.isnan().any(), "some pairs are to have no area"
    assert torch.equal(measure_overlaps(first, second), expected.nan_to_num())
    assert measure_overlaps(first[:0], second).shape == (0, 60)


SCORES = torch.tensor([[0.5, 0.3, 0.1, 0.06, 0.04]])


@pytest.mark.parametrize(
    ("found", "k", "agreement"),
    [
        ([0.5, 0.3, 0.1, 0.06, 0.04], 1, 1.0),
        ([0.3, 0.5, 0.1, 0.06, 0.04], 1, 0.0),
        ([0.3, 0.5, 0.1, 0.06, 0.04], 2, 1.0),
        ([0.5, 0.1, 0.3, 0.06, 0.04], 2, 0.5),
        ([0.1, 0.06, 0.04, 0.5, 0.3], 2, 0.0),
    ],
    ids=["same", "best changed", "order within the best", "one of two", "none of two"],
)
def test_the_best_classes_agree_as_far_as_the_reference_has_them(found: list[float], k: int, agreement: float) -> None:
    assert top_k_agreement(SCORES, torch.tensor([found]), k).tolist() == [agreement]


@pytest.mark.parametrize(
    ("best", "second", "agreement"),
    [(0.40, 0.39, 1.0), (0.40, 0.37, 0.0), (0.0012, 0.0005, 1.0), (0.012, 0.010, 0.0)],
    ids=["within 5 %", "not within", "both next to nothing", "small but apart"],
)
def test_a_near_tie_of_the_reference_may_fall_either_way(best: float, second: float, agreement: float) -> None:
    assert top_k_agreement(torch.tensor([[best, second]]), torch.tensor([[0.1, 0.9]]), 1).tolist() == [agreement]


def classes_seen(logits: Tensor) -> list[Observation]:
    return [{"logits": row} for row in logits]


def test_five_best_classes_are_compared_only_where_there_are_many() -> None:
    few, many = (torch.randn(4, classes, generator=torch.Generator().manual_seed(0)) for classes in (10, 11))
    assert "top5_agreement" not in measure_classes(classes_seen(few), classes_seen(few))
    equal = {"top1_agreement": 1.0, "top5_agreement": 1.0, "score_difference": 0.0, "snr_db": 200.0}
    assert measure_classes(classes_seen(many), classes_seen(many)).items() >= equal.items()


def test_one_bad_image_is_the_worst_case_of_all() -> None:
    expected = torch.randn(4, 20, generator=torch.Generator().manual_seed(0))
    found = expected.clone()
    found[2] = -found[2]
    measured = measure_classes(classes_seen(expected), classes_seen(found))
    assert measured["top1_agreement"] == 0.75
    assert measured["snr_db"] < 0


def boxes_seen(candidates: Candidates) -> Observation:
    return {
        "boxes": candidates.boxes,
        "scores": candidates.scores,
        "class_ids": candidates.class_ids,
        "score_profile": score_profile(candidates.scores),
        "mean_score": candidates.scores.mean(),
    }


def test_boxes_of_all_images_count_alike() -> None:
    many = [(20.0 * index, 0.9, 1) for index in range(11)]
    expected = [boxes_seen(found(*many)), boxes_seen(found(CAT))]
    lost = [boxes_seen(found(*many)), boxes_seen(found())]
    measured = measure_boxes(expected, lost, THRESHOLD)
    assert measured["matched_boxes"] == pytest.approx(22 / 23)
    assert measured["compared_boxes"] == 12
    assert measured["mean_iou"] == 1.0


@pytest.mark.parametrize(
    ("scores", "thresholds"),
    [
        ([[0.9] * 10, [0.3]], [0.5, 0.5]),
        ([[0.9], [0.3, 0.2]], [0.5, 0.18]),
        ([[], [0.9]], [0.5, 0.5]),
        ([[0.52] * 10], [0.468]),
    ],
    ids=["enough found", "too few found", "nothing at all", "none clearly found"],
)
def test_weak_boxes_are_compared_only_where_there_are_no_others(
    scores: list[list[float]], thresholds: list[float]
) -> None:
    assert choose_thresholds([torch.tensor(image) for image in scores], 0.5) == pytest.approx(thresholds)


@pytest.mark.parametrize("count", [0, 1, 5000])
def test_a_score_profile_has_one_length_and_begins_with_the_best(count: int) -> None:
    scores = torch.arange(count) / 5000
    profile = score_profile(scores.reshape(1, -1))
    assert profile.shape == (4096,)
    assert (profile.diff() <= 0).all()
    assert float(profile[0]) == (scores[-1] if count else 0)


def profiles(*images: list[float]) -> list[Tensor]:
    return [score_profile(torch.tensor(image)) for image in images]


NOISE = [0.04 * (number % 2) for number in range(2000)]
QUIET = [0.001] * 2000


@pytest.mark.parametrize(
    ("expected", "found", "decibels"),
    [
        ([0.9, 0.8, *QUIET], [0.9, 0.8, *NOISE], [200.0]),
        ([0.9, 0.8, *QUIET], [0.8, 0.7, *QUIET], [18.6]),
        ([0.9, *QUIET], [0.9, 0.3, *QUIET], [9.6]),
        ([0.9, 0.9], [0.9, 0.9], [200.0]),
        ([0.01, 0.02], [0.01, 0.02], [200.0]),
        ([], [], [200.0]),
    ],
    ids=["noise of empty rows", "all a little lower", "one invented", "constant", "all weak", "nothing"],
)
def test_only_candidates_that_could_be_shown_have_a_signal(
    expected: list[float], found: list[float], decibels: list[float]
) -> None:
    mean = sum(expected) / max(1, len(expected))
    # 0.1 dB: the values above are rounded
    assert scores_snr_db(profiles(expected), profiles(found), mean) == pytest.approx(decibels, abs=0.1)


def test_pictures_without_candidates_and_weak_ones_reject_nothing() -> None:
    expected, found = profiles([0.9] * 10, QUIET, [0.06]), profiles([0.9] * 10, NOISE, [0.03])
    ratios = scores_snr_db(expected, found, 0.01)
    assert len(ratios) == 2
    assert min(ratios) > 20


@pytest.mark.parametrize(
    ("noise", "decibels"),
    [(0.0, 200.0), (1.0, 0.0), (0.1, 20.0), (0.01, 40.0)],
    ids=["equal", "as loud", "a tenth", "a hundredth"],
)
def test_signal_to_noise_is_in_decibels(noise: float, decibels: float) -> None:
    expected = torch.tensor([1.0, -1.0]).repeat(50)
    # 0.001 dB: float32 squares of small differences
    assert signal_to_noise_db(expected, expected + noise) == pytest.approx(decibels, abs=1e-3)


@pytest.mark.parametrize("values", [torch.zeros(4), torch.full((4,), 5.0)], ids=["zeros", "constant"])
def test_outputs_without_any_signal_have_no_quality(values: Tensor) -> None:
    assert signal_to_noise_db(values, values + 1) < 0


@pytest.mark.parametrize("values", [torch.zeros(4), torch.full((4,), 5.0), torch.full((1,), -1e-9)])
def test_constants_that_are_equal_are_equal(values: Tensor) -> None:
    assert signal_to_noise_db(values, values.clone()) == 200
    assert signal_to_noise_db(values, values * (1 + 1e-7)) == 200


def test_outputs_that_are_not_finite_have_no_quality() -> None:
    values = torch.tensor([1.0, -1.0])
    assert find_failures({"snr_db": signal_to_noise_db(values, values * float("nan"))}, {"min_snr_db": 10.0})


@pytest.mark.parametrize(
    ("measured", "failures"),
    [
        ({"iou": 0.9, "score_difference": 0.1}, []),
        ({"iou": 0.89, "score_difference": 0.1}, ["least IoU 0.89, at least 0.9 asked"]),
        ({"iou": 0.9, "score_difference": 0.11}, ["score difference 0.11, at most 0.1 asked"]),
        ({"iou": float("nan"), "score_difference": float("nan")},
         ["least IoU nan, at least 0.9 asked", "score difference nan, at most 0.1 asked"]),
    ],
    ids=["at the bounds", "below", "above", "not a number"],
)  # fmt: skip
def test_broken_bounds_are_said_in_words(measured: dict[str, float], failures: list[str]) -> None:
    assert find_failures(measured, {"min_iou": 0.9, "max_score_difference": 0.1}) == failures


def test_a_bound_of_another_task_is_refused() -> None:
    with pytest.raises(ConfigError, match="bound 'min_iou' does not fit this model; measured were"):
        find_failures({"top1_agreement": 1.0}, {"min_iou": 0.9})


CLASSES = dict.fromkeys(("top1_agreement", "top5_agreement", "score_difference", "snr_db"), 1.0)
LABELLED = {**CLASSES, "accuracy_drop": 0.0}
BOXES = dict.fromkeys(("matched_boxes", "iou", "mean_iou", "score_difference", "snr_db", "compared_boxes"), 1.0)


@pytest.mark.parametrize(
    ("measured", "random_weights", "names"),
    [
        (CLASSES, False, {"min_top1_agreement", "min_top5_agreement", "max_score_difference", "min_snr_db"}),
        (LABELLED, False, {"min_top1_agreement", "min_top5_agreement", "max_score_difference", "min_snr_db",
                           "max_accuracy_drop"}),
        (BOXES, False, {"min_matched_boxes", "min_iou", "min_mean_iou", "max_score_difference", "min_snr_db"}),
        (CLASSES, True, {"min_snr_db"}),
        (BOXES, True, {"min_snr_db", "min_matched_boxes"}),
    ],
    ids=["classification", "labelled images", "detection", "random classifier", "random detector"],
)  # fmt: skip
def test_bounds_are_those_of_what_was_measured(
    measured: dict[str, float], random_weights: bool, names: set[str]
) -> None:
    assert choose_bounds(VerificationRecipe(), "fp32", measured, random_weights=random_weights).keys() == names


def test_bounds_of_the_recipe_win() -> None:
    verification = VerificationRecipe(min_top1_agreement=0.5, count=3)
    bounds = choose_bounds(verification, "fp32", CLASSES, random_weights=False)
    assert bounds["min_top1_agreement"] == 0.5
    assert "count" not in bounds


FINER: list[tuple[Precision, Precision]] = [("fp32", "fp16"), ("fp16", "bf16"), ("bf16", "int8")]


@pytest.mark.parametrize("table", [DEFAULT_BOUNDS, RANDOM_BOUNDS], ids=["trained", "random"])
@pytest.mark.parametrize(("finer", "coarser"), FINER)
def test_a_finer_precision_has_no_looser_bound(
    table: dict[Precision, dict[str, float]], finer: Precision, coarser: Precision
) -> None:
    assert table[coarser].keys() <= table[finer].keys()
    for bound, limit in table[coarser].items():
        strict = table[finer][bound]
        assert strict >= limit if bound.startswith("min_") else strict <= limit


HALF = torch.tensor([0.5, 0.5, 0.8])


@pytest.mark.parametrize(
    ("expected", "seen", "share"),
    [
        ([[0.9, 0.1, 0.95]], [[0.8, 0.2, 0.99]], 1.0),
        ([[0.9, 0.1, 0.95]], [[0.1, 0.1, 0.95]], 2 / 3),
        ([[0.9, 0.1, 0.1]], [[0.9, 0.9, 0.1]], 2 / 3),
        ([[0.9, 0.51, 0.1]], [[0.9, 0.49, 0.1]], 1.0),
        ([[0.2, 0.01, 0.01]], [[0.21, 0.01, 0.01]], 1.0),
        ([[0.2, 0.01, 0.01]], [[0.01, 0.2, 0.01]], 0.0),
    ],
    ids=["same", "lost", "invented", "near the threshold", "none above, same best", "none above, another best"],
)
def test_labels_above_their_thresholds_are_found_again(
    expected: list[list[float]], seen: list[list[float]], share: float
) -> None:
    assert match_labels(torch.tensor(expected), torch.tensor(seen), HALF) == pytest.approx(share)


def test_vectors_are_compared_by_their_least_cosine() -> None:
    one, other = (
        [{"embedding": torch.tensor(row)} for row in rows] for rows in ([[1.0, 0], [0, 2.0]], [[3.0, 0], [1.0, 1]])
    )
    assert measure_vectors(one, other)["cosine"] == pytest.approx(2**-0.5)
