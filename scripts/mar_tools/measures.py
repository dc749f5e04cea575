"""What people call the measures of a verification.json, and which bounds they have. Programs read their own names."""

import operator
from collections.abc import Mapping

WORDS = {
    "top1_agreement": "top-1 agreement",
    "top5_agreement": "top-5 agreement",
    "cosine": "least cosine",
    "iou": "least IoU",
    "answered_iou": "least IoU at a box's place",
    "mean_iou": "mean IoU",
    "mean_mask_iou": "mean mask IoU",
    "snr_db": "SNR in dB",
    "overall_snr_db": "SNR in dB over all",
    "top1": "top-1 accuracy",
    "top5": "top-5 accuracy",
    "map": "mAP",
    "map_50": "mAP at IoU 0.5",
    "nearest1": "share of pictures whose nearest is of their class",
}
SIGNS, MEETS = {"min": "≥", "max": "≤"}, {"min": operator.ge, "max": operator.le}


def name_measure(name: str) -> str:
    """Return what people call a measure; most are called as they are written."""
    return WORDS.get(name, name.replace("_", " "))


def judge_measure(name: str, value: float | None, bounds: Mapping[str, float]) -> tuple[str, bool | None]:
    """Return the bounds of a measure, as `≥ 0.97`, and whether its value meets them; None where it has none."""
    limits = {kind: bounds[f"{kind}_{name}"] for kind in SIGNS if f"{kind}_{name}" in bounds}
    asked = ", ".join(f"{SIGNS[kind]} {limit:g}" for kind, limit in limits.items())
    met = value is not None and all(MEETS[kind](value, limit) for kind, limit in limits.items())
    return asked, met if limits else None
