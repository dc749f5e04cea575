import math

import pytest
import torch
from conftest import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import batched_nms, nms

from vision_serving.options import DetectionOptions
from vision_serving.results.postprocessing import (
    NMS_BLOCK,
    Candidates,
    read_candidates,
    select_detections,
    suppress_overlaps,
    top_k_classes,
)

NO_BOXES = Candidates(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))


def boxes_in_a_row(count: int) -> Tensor:
    """(count, 4) boxes of 10 x 10 that do not overlap."""
    left = torch.arange(count) * 20.0
    return torch.stack((left, torch.zeros(count), left + 10, torch.full((count,), 10.0)), dim=1)


def candidates(scores: list[float], class_ids: list[int] | None = None, boxes: Tensor | None = None) -> Candidates:
    ids = torch.tensor(class_ids if class_ids is not None else [0] * len(scores), dtype=torch.int64)
    return Candidates(boxes_in_a_row(len(scores)) if boxes is None else boxes, torch.tensor(scores), ids)


@pytest.mark.parametrize(
    ("logits", "top_k", "class_ids"),
    [
        ([0.0], 1, [0]),
        ([0.0], 5, [0]),
        ([1.0, 3.0, 2.0], 1, [1]),
        ([1.0, 3.0, 2.0], 3, [1, 2, 0]),
        ([1.0, 3.0, 2.0], 1000, [1, 2, 0]),
    ],
    ids=["one class", "one class, five asked", "best", "all", "more than there are"],
)
def test_top_k_gives_the_best_first_and_no_more_than_there_are(
    logits: list[float], top_k: int, class_ids: list[int]
) -> None:
    scores, found = top_k_classes(torch.tensor(logits), top_k)
    assert found.tolist() == class_ids
    assert scores.tolist() == sorted(scores.tolist(), reverse=True)


def test_scores_of_all_classes_are_probabilities() -> None:
    scores, _ = top_k_classes(torch.randn(1000, generator=torch.Generator().manual_seed(0)), 1000)
    assert float(scores.sum()) == pytest.approx(1, abs=1e-5)  # a float32 sum of 1000 terms


def test_half_precision_logits_are_scored_in_float32() -> None:
    scores, _ = top_k_classes(torch.tensor([1.0, 2.0], dtype=torch.bfloat16), 2)
    assert scores.dtype == torch.float32


@pytest.mark.parametrize(
    ("given", "options", "kept_scores"),
    [
        (NO_BOXES, {}, []),
        (candidates([0.9]), {}, [0.9]),
        (candidates([0.1, 0.9, 0.5]), {}, [0.9, 0.5, 0.1]),
        (candidates([0.1, 0.9, 0.5]), {"max_detections": 2}, [0.9, 0.5]),
        (candidates([0.9, 0.8], boxes=boxes_in_a_row(1).repeat(2, 1)), {}, [0.9]),
        (candidates([0.9, 0.8], [0, 1], boxes_in_a_row(1).repeat(2, 1)), {}, [0.9, 0.8]),
        (candidates([0.9, 0.8], boxes=boxes_in_a_row(1).repeat(2, 1)), {"iou_threshold": 1.0}, [0.9, 0.8]),
        (candidates([0.9, 0.8], boxes=torch.zeros(2, 4)), {}, [0.9, 0.8]),
        (candidates([0.9, 0.8, 0.7], [0, 1, 2]), {"class_filter": (2, 0)}, [0.9, 0.7]),
        (candidates([0.9]), {"class_filter": (5,)}, []),
        (candidates([0.9]), {"class_filter": ()}, []),
        (NO_BOXES, {"class_filter": (0,)}, []),
    ],
    ids=["no boxes", "one box", "best first", "limited", "twice the same", "same box, other class",
         "threshold 1 keeps all", "empty boxes do not overlap", "filtered", "nothing of that class", "empty filter",
         "filter, no boxes"],
)  # fmt: skip
def test_nms_keeps_the_best_of_each_class_best_first(
    given: Candidates, options: dict[str, object], kept_scores: list[float]
) -> None:
    kept = select_detections(given, DetectionOptions.model_validate(options))
    assert kept.scores.tolist() == pytest.approx(kept_scores)
    assert kept.boxes.shape == (len(kept_scores), 4)


@pytest.mark.parametrize(
    ("scores", "class_ids", "kept"),
    [([], [], []), ([0.5], [3], []), ([0.6, 0.2, 0.7], [1, 2, 3], [1, 3]), ([-1.0, 0.0, 0.51], [1, 2, 3], [3])],
    ids=["no candidates", "the threshold itself is out", "above", "padding"],
)
def test_padded_outputs_keep_what_is_above_the_threshold(
    scores: list[float], class_ids: list[int], kept: list[int]
) -> None:
    outputs = {
        "boxes": boxes_in_a_row(len(scores))[None],
        "scores": torch.tensor([scores]),
        "class_ids": torch.tensor([class_ids], dtype=torch.int64),
    }
    assert read_candidates(outputs, 0, 0.5, None).class_ids.tolist() == kept


DENSE_SCORES = torch.tensor([[[0.9, 0.1], [0.6, 0.8], [0.7, 0.55]]])
DENSE = {"boxes": boxes_in_a_row(3)[None], "scores": DENSE_SCORES}


@pytest.mark.parametrize(
    ("threshold", "per_class", "pairs"),
    [
        (1.0, None, []),
        (0.5, None, [(0, 0.9), (0, 0.6), (1, 0.8), (0, 0.7), (1, 0.55)]),
        (0.5, 1, [(0, 0.9), (1, 0.8)]),
        (0.5, 2, [(0, 0.9), (1, 0.8), (0, 0.7), (1, 0.55)]),
        (0.65, 2, [(0, 0.9), (1, 0.8), (0, 0.7)]),
        (0.0, 3, [(0, 0.9), (1, 0.1), (0, 0.6), (1, 0.8), (0, 0.7), (1, 0.55)]),
        (0.0, 100, [(0, 0.9), (1, 0.1), (0, 0.6), (1, 0.8), (0, 0.7), (1, 0.55)]),
    ],
    ids=["nothing", "all above", "one a class", "two a class", "both limits", "as many as there are", "more"],
)
def test_dense_outputs_keep_the_best_of_each_class_above_the_threshold(
    threshold: float, per_class: int | None, pairs: list[tuple[int, float]]
) -> None:
    found = read_candidates(DENSE, 0, threshold, per_class)
    assert list(zip(found.class_ids.tolist(), found.scores.tolist())) == [(c, pytest.approx(s)) for c, s in pairs]


def test_a_box_that_two_classes_share_is_given_to_both() -> None:
    found = read_candidates(DENSE, 0, 0.5, None)
    assert (found.boxes[1] == found.boxes[2]).all()


def test_an_image_of_a_batch_reads_its_own_rows() -> None:
    outputs = {
        "boxes": boxes_in_a_row(6).reshape(2, 3, 4),
        "scores": torch.stack((DENSE_SCORES[0] * 0, DENSE_SCORES[0])),
    }
    assert len(read_candidates(outputs, 0, 0.5, None).scores) == 0
    assert (read_candidates(outputs, 1, 0.85, None).boxes == boxes_in_a_row(6)[3:4]).all()


# Whole coordinates: torchvision moves each class's boxes apart, which rounds others. Few of them, and few scores: so
# boxes without area, boxes on top of each other, IoUs at the threshold and ties in score are common.
WHOLE_BOXES = st.lists(
    st.tuples(*[st.integers(0, 8)] * 4, st.sampled_from([0.25, 0.5, 0.75]), st.integers(0, 2)), max_size=40
)
THRESHOLDS = st.sampled_from([0.1, 0.25, 1 / 3, 0.45, 0.5, 0.6, 0.7, 1.0])


def drawn(rows: list[tuple[int, int, int, int, float, int]]) -> Candidates:
    boxes = torch.tensor([[min(x), min(y), max(x), max(y)] for *xy, _, _ in rows for x, y in [(xy[::2], xy[1::2])]])
    return candidates([row[4] for row in rows], [row[5] for row in rows], boxes.reshape(-1, 4).float())


def rows_of(found: Candidates) -> list[list[float]]:
    return torch.cat((found.boxes, found.scores[:, None], found.class_ids[:, None]), dim=1).tolist()  # type: ignore[no-any-return]


@settings(max_examples=examples(300), deadline=None)
@given(rows=WHOLE_BOXES, iou_threshold=THRESHOLDS, limit=st.integers(1, 50))
def test_nms_equals_torchvisions_cut_to_the_limit(
    rows: list[tuple[int, int, int, int, float, int]], iou_threshold: float, limit: int
) -> None:
    given_candidates = drawn(rows)
    expected = batched_nms(given_candidates.boxes, given_candidates.scores, given_candidates.class_ids, iou_threshold)[
        :limit
    ]
    assert suppress_overlaps(given_candidates, iou_threshold, limit).tolist() == expected.tolist()


def nms_of_each_class(given: Candidates, iou_threshold: float) -> Tensor:
    """torchvision's nms within each class where the boxes are, best first, of equal scores the first."""
    kept = torch.zeros(len(given.scores), dtype=torch.bool)
    for class_id in set(given.class_ids.tolist()):
        own = (given.class_ids == class_id).nonzero().squeeze(1)
        kept[own[nms(given.boxes[own], given.scores[own], iou_threshold)]] = True
    indices = kept.nonzero().squeeze(1)
    return indices[given.scores[indices].sort(descending=True, stable=True).indices]


@pytest.mark.parametrize("iou_threshold", [0.3, 0.6])
@pytest.mark.parametrize("count", [1, 30, NMS_BLOCK, NMS_BLOCK + 1, 1000, 8000])
def test_nms_of_any_number_of_boxes_anywhere_equals_torchvisions_within_each_class(
    count: int, iou_threshold: float
) -> None:
    generator = torch.Generator().manual_seed(count)
    corners = torch.rand(count, 2, generator=generator) * 100 - 20
    boxes = torch.cat((corners, corners + torch.rand(count, 2, generator=generator) * 40 - 1), dim=1)  # some inverted
    scores = (torch.rand(count, generator=generator) * 500).round() / 500  # many ties
    many = Candidates(boxes, scores, torch.randint(0, 4, (count,), generator=generator))
    expected = nms_of_each_class(many, iou_threshold)
    assert suppress_overlaps(many, iou_threshold, count).tolist() == expected.tolist()
    assert suppress_overlaps(many, iou_threshold, 100).tolist() == expected[:100].tolist()


@settings(max_examples=examples(200), deadline=None)
@given(rows=WHOLE_BOXES, iou_threshold=THRESHOLDS, limit=st.integers(1, 50))
def test_class_agnostic_nms_equals_torchvisions_of_boxes_alone(
    rows: list[tuple[int, int, int, int, float, int]], iou_threshold: float, limit: int
) -> None:
    many = drawn(rows)
    expected = many.take(nms(many.boxes, many.scores, iou_threshold)[:limit])
    options = DetectionOptions(nms="class_agnostic", iou_threshold=iou_threshold, max_detections=limit)
    assert rows_of(select_detections(many, options)) == rows_of(expected)


def test_without_nms_the_best_are_kept_whatever_they_overlap() -> None:
    given_candidates = candidates([0.7, 0.9, 0.7, 0.2], [0, 0, 1, 0], boxes_in_a_row(1).repeat(4, 1))
    kept = select_detections(given_candidates, DetectionOptions(nms="none", max_detections=3))
    assert kept.scores.tolist() == pytest.approx([0.9, 0.7, 0.7])
    assert kept.class_ids.tolist() == [0, 0, 1]


def plain_iou(first: list[float], second: list[float]) -> float:
    width = max(0.0, min(first[2], second[2]) - max(first[0], second[0]))
    height = max(0.0, min(first[3], second[3]) - max(first[1], second[1]))
    areas = sum((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (first, second))
    return width * height / (areas - width * height) if areas > width * height else 0.0


def soft_nms_of_a_class(boxes: list[list[float]], scores: list[float], least: float) -> list[tuple[int, float]]:
    """Bodla et al. (2017), figure 2, with the Gaussian of equation 4 and sigma 0.5: (box, new score), best first."""
    left, chosen = dict(enumerate(scores)), []
    while left:
        best = max(left, key=lambda index: left[index])
        chosen.append((best, left.pop(best)))
        for index in left:
            left[index] *= math.exp(-(plain_iou(boxes[best], boxes[index]) ** 2) / 0.5)
    return [(index, score) for index, score in chosen if score > least]


@pytest.mark.parametrize("limit", [5, 1000])
@pytest.mark.parametrize("least", [0.0, 0.05, 0.3])
@pytest.mark.parametrize("seed", range(5))
def test_soft_nms_gives_the_scores_of_the_papers_algorithm_within_each_class(
    seed: int, least: float, limit: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(60, 2, generator=generator) * 20
    boxes = torch.cat((corners, corners + torch.rand(60, 2, generator=generator) * 20), dim=1)
    many = Candidates(boxes, torch.rand(60, generator=generator), torch.randint(0, 3, (60,), generator=generator))
    expected: list[tuple[float, int]] = []
    for class_id in range(3):
        own = (many.class_ids == class_id).nonzero().squeeze(1).tolist()
        found = soft_nms_of_a_class(boxes[own].tolist(), many.scores[own].tolist(), least)
        expected += [(score, own[index]) for index, score in found]
    best = sorted(expected, reverse=True)[:limit]
    kept = select_detections(many, DetectionOptions(nms="soft", score_threshold=least, max_detections=limit))
    assert kept.boxes.tolist() == boxes[[index for _, index in best]].tolist()
    assert kept.scores.tolist() == pytest.approx([score for score, _ in best], abs=1e-5)  # float32, not float64


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30], ids=["nan", "inf", "areas overflow"])
@pytest.mark.parametrize("kind", ["class_wise", "class_agnostic", "soft", "none"])
def test_boxes_that_are_not_finite_pass_every_nms_on_to_the_handler(kind: str, value: float) -> None:
    boxes = boxes_in_a_row(3)
    boxes[1, 2] = value
    kept = select_detections(candidates([0.9, 0.8, 0.7], boxes=boxes), DetectionOptions.model_validate({"nms": kind}))
    assert kept.scores.tolist() == pytest.approx([0.9, 0.8, 0.7])


PADDED = {
    "boxes": boxes_in_a_row(6)[None],
    "scores": torch.tensor([[0.9, 0.1, 0.6, 0.8, 0.7, 0.55]]),
    "class_ids": torch.tensor([[0, 1, 0, 1, 0, 1]]),
}


@pytest.mark.parametrize("outputs", [PADDED, DENSE], ids=["padded", "dense"])
@pytest.mark.parametrize(
    ("threshold", "own", "pairs"),
    [
        (0.5, {0: 0.65}, [(0, 0.7), (0, 0.9), (1, 0.55), (1, 0.8)]),
        (0.75, {1: 0.05}, [(0, 0.9), (1, 0.1), (1, 0.55), (1, 0.8)]),
        (0.0, {0: 1.0, 1: 0.6}, [(1, 0.8)]),
        (0.85, {1: 0.85}, [(0, 0.9)]),
    ],
    ids=["higher", "lower", "all classes", "the same"],
)
def test_a_class_has_its_own_threshold_over_that_of_all(
    outputs: dict[str, Tensor], threshold: float, own: dict[int | str, float], pairs: list[tuple[int, float]]
) -> None:
    found = read_candidates(outputs, 0, threshold, None, own)
    scored = sorted(zip(found.class_ids.tolist(), found.scores.tolist()))
    assert scored == [(class_id, pytest.approx(score)) for class_id, score in pairs]


def test_thresholds_of_classes_join_the_limit_of_candidates_per_class() -> None:
    found = read_candidates(DENSE, 0, 0.5, 2, {0: 0.8})
    assert sorted(found.scores.tolist()) == pytest.approx([0.55, 0.8, 0.9])


@pytest.mark.parametrize("kind", ["class_wise", "class_agnostic", "soft", "none"])
def test_padded_and_dense_outputs_of_the_same_candidates_are_selected_alike(kind: str) -> None:
    generator = torch.Generator().manual_seed(3)
    corners = torch.rand(60, 2, generator=generator) * 40
    boxes = torch.cat((corners, corners + 5 + torch.rand(60, 2, generator=generator) * 20), dim=1)
    scores = torch.rand(60, 4, generator=generator)
    padded = {
        "boxes": boxes.repeat_interleave(4, dim=0)[None],
        "scores": scores.reshape(1, -1),
        "class_ids": torch.arange(4).repeat(60)[None],
    }
    options = DetectionOptions.model_validate(
        {"nms": kind, "score_threshold": 0.4, "class_thresholds": {2: 0.1}, "class_filter": (0, 2)}
    )
    found = [
        select_detections(read_candidates(outputs, 0, 0.4, None, options.class_thresholds), options)
        for outputs in (padded, {"boxes": boxes[None], "scores": scores[None]})
    ]
    assert rows_of(found[0]) == rows_of(found[1])
    assert set(found[0].class_ids.tolist()) <= {0, 2}
    assert len(found[0].scores) > 5, "few detections would prove little"


def postprocess_like_torchvision_ssd(
    boxes: Tensor, scores: Tensor, options: DetectionOptions, top_k: int
) -> Candidates:
    """SSD.postprocess_detections of one image, from decoded boxes (Q, 4) and softmax scores (Q, C)."""
    kept_boxes, kept_scores, kept_ids = [], [], []
    for class_id in range(1, scores.shape[1]):
        class_scores = scores[:, class_id]
        above = class_scores > options.score_threshold
        class_scores, class_boxes = class_scores[above], boxes[above]
        best = class_scores.topk(min(top_k, len(class_scores))).indices
        kept_boxes.append(class_boxes[best])
        kept_scores.append(class_scores[best])
        kept_ids.append(torch.full_like(best, class_id))
    every = Candidates(torch.cat(kept_boxes), torch.cat(kept_scores), torch.cat(kept_ids))
    keep = batched_nms(every.boxes, every.scores, every.class_ids, options.iou_threshold)
    return every.take(keep[: options.max_detections])


@pytest.mark.parametrize("top_k", [1, 10, 400])
@pytest.mark.parametrize("threshold", [0.001, 0.3, 0.99])
def test_dense_outputs_are_selected_as_torchvisions_ssd_selects(threshold: float, top_k: int) -> None:
    generator = torch.Generator().manual_seed(7)
    corners = torch.rand(300, 2, generator=generator) * 280
    boxes = torch.cat((corners, corners + torch.rand(300, 2, generator=generator) * 60), dim=1)
    scores = torch.rand(300, 5, generator=generator)
    scores[:, 0] = 0  # the graph zeroes the background
    options = DetectionOptions(score_threshold=threshold, iou_threshold=0.45, max_detections=200)
    expected = postprocess_like_torchvision_ssd(boxes, scores, options, top_k)
    found = select_detections(
        read_candidates({"boxes": boxes[None], "scores": scores[None]}, 0, threshold, top_k), options
    )
    assert (found.boxes == expected.boxes).all()
    assert (found.scores == expected.scores).all()
    assert (found.class_ids == expected.class_ids).all()
