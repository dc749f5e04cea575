"""How the answers of an export differ from the reference's.

Near ties do not count as differences: rounding decides them, in the reference too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from mar_tools.exporting.signal_to_noise import scores_snr_db, signal_to_noise_db
from mar_tools.verification.instance_agreement import measure_instances
from mar_tools.verification.observations import Observation
from vision_serving.options import Task
from vision_serving.results.postprocessing import Candidates, measure_iou, score_classes

TIE_SHARE = 0.05  # classes whose scores are within this share of each other ...
TIE_SCORE = 0.001  # ... or this near, are tied
FEW_CLASSES = 10  # up to so many, the five best are mostly the ones that do not matter

MATCH_IOU = 0.5
COMPARED_BOXES = 10
THRESHOLD_SLACK = 0.1  # a box within this share above the threshold may be on either side of it


def measure_agreement(
    task: Task, expected: Sequence[Observation], found: Sequence[Observation], score_threshold: float
) -> dict[str, float]:
    """Return each measure over all images: shares are means, everything else is the worst case.

    top1_agreement    share of images whose best class is the reference's, or tied with it there
    top5_agreement    mean share of the five best classes that the reference has among its five, or tied with its fifth;
                      an image that is nearly certain of its best class agrees: its fifth is tied with all others
    matched_labels    of independent scores: share of the labels clearly above their threshold, of both, that the other
                      side has, or has nearly
    cosine            least cosine similarity of two embeddings of an image
    score_difference  largest difference of any class score, or of the scores of any matched pair of boxes
    matched_boxes     share of all boxes clearly above the score threshold, of both, that have a partner of their class
    mean_iou, iou     the mean and the least IoU of the matched pairs
    compared_boxes    how many boxes of the reference took part
    mean_mask_iou, keypoint_distance   of the matched pairs, see `instance_agreement.measure_instances`
    snr_db            least signal-to-noise ratio of the logits; of a detector, of its scores that count, in order
    """
    measure: Callable[..., dict[str, float]]
    measure = {"classification": measure_classes, "detection": measure_boxes, "embedding": measure_vectors}[task]
    return {name: round(value, 6) for name, value in measure(expected, found, score_threshold).items()}


def measure_classes(
    expected: Sequence[Observation], found: Sequence[Observation], score_threshold: float = 0.0
) -> dict[str, float]:
    logits = [torch.stack([image["logits"] for image in side]) for side in (expected, found)]
    is_multi_label = "thresholds" in expected[0]
    scores = [score_classes(side, "sigmoid" if is_multi_label else "softmax") for side in logits]
    if is_multi_label:
        measured = {"matched_labels": match_labels(scores[0], scores[1], expected[0]["thresholds"])}
    else:
        measured = {"top1_agreement": float(top_k_agreement(scores[0], scores[1], 1).mean())}
    if not is_multi_label and scores[0].shape[1] > FEW_CLASSES:
        measured["top5_agreement"] = float(top_k_agreement(scores[0], scores[1], 5).mean())
    measured["score_difference"] = float((scores[0] - scores[1]).abs().max())
    measured["snr_db"] = least_snr_db(logits[0], logits[1])
    return measured


def match_labels(expected: Tensor, found: Tensor, thresholds: Tensor) -> float:
    """Return the share of labels (N, C) above thresholds (C,) that both sides have, near ties aside.

    Where the reference has none in any image, its best label of each image is what must be found again.
    """
    if not (expected > thresholds).any():
        thresholds = 0.9 * expected.max(dim=1, keepdim=True).values
    nearly = thresholds * (1 - THRESHOLD_SLACK) - TIE_SCORE
    owed = matched = 0
    for one, other in ((expected, found), (found, expected)):
        clear = one >= thresholds * (1 + THRESHOLD_SLACK)
        owed += int(clear.sum())
        matched += int((clear & (other > nearly)).sum())
    return matched / owed if owed else 1.0


def measure_vectors(
    expected: Sequence[Observation], found: Sequence[Observation], score_threshold: float = 0.0
) -> dict[str, float]:
    vectors = [torch.stack([image["embedding"] for image in side]) for side in (expected, found)]
    return {
        "cosine": float(functional.cosine_similarity(vectors[0], vectors[1], dim=1).min()),
        "snr_db": least_snr_db(vectors[0], vectors[1]),
    }


def top_k_agreement(expected: Tensor, found: Tensor, k: int) -> Tensor:
    """Return (N,): the share of the k best found classes among the k best expected, ties included, of (N, C)."""
    least = expected.topk(k, dim=1).values[:, -1:]
    among = expected.gather(1, found.topk(k, dim=1).indices) >= least * (1 - TIE_SHARE) - TIE_SCORE
    return among.float().mean(dim=1)


def measure_boxes(
    expected: Sequence[Observation], found: Sequence[Observation], score_threshold: float
) -> dict[str, float]:
    thresholds = choose_thresholds([image["scores"] for image in expected], score_threshold)
    boxes = [
        [boxes_above(image, threshold) for image, threshold in zip(side, thresholds, strict=True)]
        for side in (expected, found)
    ]
    matches = [match_boxes(*sides) for sides in zip(*boxes, thresholds, strict=True)]
    owed = sum(match.owed for match in matches)
    ious = [iou for match in matches for iou in match.ious]
    differences = [difference for match in matches for difference in match.score_differences]
    profiles = [[image["score_profile"] for image in side] for side in (expected, found)]
    mean_score = float(torch.stack([image["mean_score"] for image in expected]).mean())
    return {
        "matched_boxes": sum(match.paid for match in matches) / owed if owed else 1.0,
        "iou": min(ious, default=1.0),
        "mean_iou": sum(ious) / len(ious) if ious else 1.0,
        "score_difference": max(differences, default=0.0),
        "snr_db": least(scores_snr_db(profiles[0], profiles[1], mean_score)),
        "compared_boxes": float(sum(len(image.scores) for image in boxes[0])),
        **measure_instances(zip(expected, found, [match.pairs for match in matches], strict=True)),
    }


def choose_thresholds(scores: Sequence[Tensor], score_threshold: float) -> list[float]:
    """Choose for each image the score above which its boxes are compared. scores: the reference's, best first.

    The detector's own threshold, where it finds boxes in these images. Where it does not, being random or shown
    something else, comparing none would prove nothing: then an image's best boxes are compared.
    """
    clear = [len(_clearly_above(image, score_threshold)) for image in scores]  # only these owe a partner
    if sum(clear) >= COMPARED_BOXES:
        return [score_threshold] * len(scores)
    return [
        0.9 * float(image[:COMPARED_BOXES].min()) if len(image) and not count else score_threshold
        for image, count in zip(scores, clear, strict=True)
    ]


def boxes_above(image: Observation, threshold: float) -> Candidates:
    """Drop boxes thinner than a pixel, whose overlap means nothing; untrained networks give many."""
    numbers = torch.arange(len(image["scores"]))
    candidates = Candidates(image["boxes"], image["scores"], image["class_ids"], numbers)
    widths_heights = candidates.boxes[:, 2:] - candidates.boxes[:, :2]
    kept = (candidates.scores > threshold) & (widths_heights >= 1).all(dim=1)
    return candidates.take(kept.nonzero().squeeze(1))


@dataclass(frozen=True)
class Match:
    """One image's boxes: `owed` need a partner, `paid` have one. pairs: rows of both candidates, with their ious."""

    owed: int
    paid: int
    pairs: tuple[tuple[int, int], ...]
    ious: tuple[float, ...]
    score_differences: tuple[float, ...]


def match_boxes(expected: Candidates, found: Candidates, score_threshold: float) -> Match:
    """Pair boxes of one class one to one, the best overlap first. Those clearly above the threshold owe a partner."""
    overlap = measure_overlaps(expected.boxes, found.boxes)
    overlap[expected.class_ids[:, None] != found.class_ids[None, :]] = 0.0
    partners: dict[int, int] = {}
    for flat in overlap.flatten().argsort(descending=True).tolist():
        row, column = divmod(flat, overlap.shape[1])
        if overlap[row, column] < MATCH_IOU:
            break
        if row not in partners and column not in partners.values():
            partners[row] = column
    owed_expected, owed_found = (_clearly_above(side.scores, score_threshold) for side in (expected, found))
    numbers = [range(len(side.scores)) if side.rows is None else side.rows.tolist() for side in (expected, found)]
    return Match(
        owed=len(owed_expected) + len(owed_found),
        paid=len(owed_expected & partners.keys()) + len(owed_found & set(partners.values())),
        pairs=tuple((numbers[0][row], numbers[1][column]) for row, column in partners.items()),
        ious=tuple(float(overlap[pair]) for pair in partners.items()),
        score_differences=tuple(
            abs(float(expected.scores[row] - found.scores[column])) for row, column in partners.items()
        ),
    )


def measure_overlaps(first: Tensor, second: Tensor) -> Tensor:
    """Return IoUs (N, M) of boxes (N, 4), (M, 4) xyxy, 0 without area: torchvision's, without its slow import."""
    return torch.from_numpy(measure_iou(first.numpy()[:, None], second.numpy()[None])).nan_to_num()


def _clearly_above(scores: Tensor, threshold: float) -> set[int]:
    return set((scores >= threshold * (1 + THRESHOLD_SLACK)).nonzero().squeeze(1).tolist())


def least_snr_db(expected: Tensor, found: Tensor) -> float:
    """Return the least of the rows of (N, V)."""
    return least([signal_to_noise_db(*rows) for rows in zip(expected, found, strict=True)])


def least(ratios: Sequence[float]) -> float:
    return float(torch.tensor(ratios, dtype=torch.float64).min())  # torch's min keeps a NaN
