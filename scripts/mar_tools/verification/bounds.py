"""How much an export may differ from the reference, for each precision: little more than the arithmetic's rounding.

A value is rounded by up to 2^-24 of itself in fp32, 2^-11 in fp16, 2^-8 in bf16, and in int8 by 2^-8 of the largest of
its tensor. bf16 errors are eight times those of fp16 (18 dB); int8 errors are several times those of bf16, as a typical
value is a fraction of the largest. The bounds on the signal-to-noise ratio keep such distances.
"""

from collections.abc import Mapping

from mar_tools.measures import MEETS, name_measure
from mar_tools.models.recipes import TRUTH_OF_BOUND, VerificationRecipe
from vision_serving.config import Precision
from vision_serving.errors import ConfigError

# Trained weights: what counts is the answers. Near ties are no difference (agreement.py), so fp32 must give them all.
# Half precisions may turn one undecided image in a hundred, int8 three: more speaks of a bad calibration. int8 boxes
# move by a few pixels, so their mean IoU is bound, and not the worst pair.
# Masks are thresholded and keypoints are maxima: a little noise moves the rim of a mask, and sometimes a keypoint far.
# Independent scores: a label near its threshold may come or go. Embeddings are compared by their angle, so the least
# cosine is bound beside the SNR, which looks at what an image has beyond the mean of its values.
# accuracy_drop, where the truth is known: one image in two hundred is chance; two points are what int8 may cost.
DEFAULT_BOUNDS: dict[Precision, dict[str, float]] = {
    "fp32": {
        "min_top1_agreement": 1.0,
        "min_top5_agreement": 0.99,
        "min_matched_labels": 1.0,
        "min_cosine": 0.9999,
        "min_matched_boxes": 0.99,
        "min_iou": 0.9,
        "min_mean_iou": 0.99,
        "min_mean_mask_iou": 0.98,
        "max_keypoint_distance": 0.01,
        "max_score_difference": 0.01,
        "min_snr_db": 50.0,
        "max_accuracy_drop": 0.005,
    },
    "fp16": {
        "min_top1_agreement": 0.99,
        "min_top5_agreement": 0.98,
        "min_matched_labels": 0.99,
        "min_cosine": 0.999,
        "min_matched_boxes": 0.98,
        "min_iou": 0.85,
        "min_mean_iou": 0.98,
        "min_mean_mask_iou": 0.97,
        "max_keypoint_distance": 0.02,
        "max_score_difference": 0.03,
        "min_snr_db": 35.0,
        "max_accuracy_drop": 0.005,
    },
    "bf16": {
        "min_top1_agreement": 0.99,
        "min_top5_agreement": 0.95,
        "min_matched_labels": 0.97,
        "min_cosine": 0.995,
        "min_matched_boxes": 0.95,
        "min_iou": 0.75,
        "min_mean_iou": 0.95,
        "min_mean_mask_iou": 0.93,
        "max_keypoint_distance": 0.04,
        "max_score_difference": 0.1,
        "min_snr_db": 20.0,
        "max_accuracy_drop": 0.01,
    },
    "int8": {
        "min_top1_agreement": 0.97,
        "min_top5_agreement": 0.9,
        "min_matched_labels": 0.9,
        "min_cosine": 0.97,
        "min_matched_boxes": 0.9,
        "min_mean_iou": 0.85,
        "min_mean_mask_iou": 0.8,
        "max_keypoint_distance": 0.1,
        "max_score_difference": 0.3,
        "min_snr_db": 10.0,
        "max_accuracy_drop": 0.02,
    },
}

# Random weights: no class stands out, so answers turn on nothing, and only the outputs' signal-to-noise ratio tells.
# A detector's best random boxes are near ties too, so few of them must be found again.
RANDOM_BOUNDS: dict[Precision, dict[str, float]] = {
    "fp32": {"min_snr_db": 60.0, "min_matched_boxes": 0.95},
    "fp16": {"min_snr_db": 40.0, "min_matched_boxes": 0.8},
    "bf16": {"min_snr_db": 25.0, "min_matched_boxes": 0.3},
    "int8": {"min_snr_db": 15.0, "min_matched_boxes": 0.2},
}

FLOORS = tuple(bound for bound in TRUTH_OF_BOUND if bound.startswith("min_"))  # absolute: of the reference, too

# Images that are decoded smaller differ from whole ones by a level or two of 255, which is what rounding to bf16 costs.
SCALED_DECODING: dict[Precision, Precision] = {"fp32": "bf16", "fp16": "bf16"}


def choose_bounds(
    verification: VerificationRecipe, precision: Precision, measured: Mapping[str, float], *, random_weights: bool
) -> dict[str, float]:
    """Return the defaults of the precision for what was measured, with the recipe's own values over them.

    Random weights, which are for timing, know nothing: no floor of the recipe is asked of them.
    """
    table = RANDOM_BOUNDS if random_weights else DEFAULT_BOUNDS
    defaults = {bound: limit for bound, limit in table[precision].items() if bound[4:] in measured}
    own = verification.bounds()
    return {**defaults, **{bound: own[bound] for bound in own if not (random_weights and bound in FLOORS)}}


def find_failures(measured: Mapping[str, float], bounds: Mapping[str, float]) -> list[str]:
    """Return which bounds (`min_...`, `max_...`) the measured values break, in words."""
    failures = []
    for bound, limit in bounds.items():
        kind, _, name = bound.partition("_")
        if name not in measured:
            raise ConfigError(f"bound {bound!r} does not fit this model; measured were {sorted(measured)}")
        value = measured[name]
        if not MEETS[kind](value, limit):
            side = "at least" if kind == "min" else "at most"
            failures.append(f"{name_measure(name)} {value:.4g}, {side} {limit:.4g} asked")
    return failures
