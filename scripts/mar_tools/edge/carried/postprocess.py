"""What a model gives becomes classes, boxes or a vector, by NumPy alone: as the server does it.

    answer = postprocess(outputs, geometry, labels, options)

outputs: by name, of one picture: `logits` (1, C); `embedding` (1, D); `boxes` (1, Q, 4) xyxy in the model's pixels with
`scores` (1, Q, C), or with `scores` (1, Q) and `class_ids` (1, Q). options: what options.json says.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from preprocess import Geometry

Floats = NDArray[np.float32]
Numbers = NDArray[np.int64]


def postprocess(
    outputs: Mapping[str, NDArray[Any]], geometry: "Geometry", labels: Sequence[str], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return `{"classes": ...}`, `{"detections": ...}` with boxes in the picture's pixels, or `{"embedding": ...}`."""
    if "embedding" in outputs:
        vector = outputs["embedding"][0].astype(np.float64)
        return {"embedding": (vector / np.linalg.norm(vector)).tolist()}
    if "logits" in outputs:
        class_ids, scores = read_classes(outputs["logits"][0], options)
        found = zip(class_ids.tolist(), scores.tolist())
        return {"classes": [{"class_id": k, "label": labels[k], "score": round(score, 6)} for k, score in found]}
    boxes, class_ids, scores = read_detections(outputs, options)
    rounded = np.round(to_source(boxes, geometry).astype(np.float64), 2).tolist()
    found_boxes = zip(class_ids.tolist(), np.minimum(scores, 1).tolist(), rounded)
    return {
        "detections": [
            {"class_id": k, "label": labels[k], "score": round(score, 6), "box": box} for k, score, box in found_boxes
        ]
    }


def read_classes(logits: Floats, options: Mapping[str, Any]) -> tuple[Numbers, Floats]:
    """Return the best class ids and scores of (C,): `top_k` of them, with sigmoid those above their threshold."""
    values: Floats = logits.astype(np.float32)
    scores: Floats
    if options["activation"] == "sigmoid":
        scores = (1 / (1 + np.exp(-values))).astype(np.float32)
        order = np.argsort(-scores, kind="stable")
        order = order[scores[order] > np.asarray(options["thresholds"], np.float32)[order]]
    else:
        powers = np.exp(values - values.max())
        scores = powers / powers.sum()
        order = np.argsort(-scores, kind="stable")
    best = order[: options["top_k"]].astype(np.int64)
    return best, scores[best]


def read_detections(outputs: Mapping[str, NDArray[Any]], options: Mapping[str, Any]) -> tuple[Floats, Numbers, Floats]:
    """Return boxes (K, 4) in the model's pixels, class ids and scores: above the thresholds, after NMS, best first."""
    boxes, scores = (outputs[name][0].astype(np.float32) for name in ("boxes", "scores"))
    thresholds = np.asarray(options["thresholds"], np.float32)  # one a class
    if "class_ids" in outputs:
        class_ids = outputs["class_ids"][0].astype(np.int64)
        rows = np.flatnonzero(scores > thresholds[class_ids])
        class_ids, scores = class_ids[rows], scores[rows]
    else:
        kept, most = scores > thresholds, options["candidates_per_class"]
        if most is not None and most < len(scores):
            kept &= scores >= np.sort(scores, axis=0)[-most]
        rows, class_ids = np.nonzero(kept)
        scores = scores[rows, class_ids]
    if options["class_filter"] is not None:
        wanted = np.isin(class_ids, options["class_filter"])
        rows, class_ids, scores = rows[wanted], class_ids[wanted], scores[wanted]
    boxes = boxes[rows]
    best = suppress(boxes, scores, class_ids, options)
    return boxes[best], class_ids[best], scores[best]


def suppress(boxes: Floats, scores: Floats, class_ids: Numbers, options: Mapping[str, Any]) -> Numbers:
    """Return the indices of (K, 4) that no better box of the same class overlaps too much, best first."""
    order = np.argsort(-scores, kind="stable")
    if options["nms"] == "none":
        return order[: options["max_detections"]]
    kept: list[int] = []
    while len(order) and len(kept) < options["max_detections"]:
        best, order = order[0], order[1:]
        kept.append(int(best))
        rivals = overlaps(boxes[best], boxes[order]) > np.float64(options["iou_threshold"])  # not rounded before
        if options["nms"] == "class_wise":
            rivals &= class_ids[order] == class_ids[best]
        order = order[~rivals]
    return np.asarray(kept, np.int64)


def overlaps(one: Floats, others: Floats) -> Floats:
    """Return the IoUs (K,) of a box with boxes (K, 4) xyxy; NaN, which is no overlap, for two without area."""
    low, high = np.maximum(one[:2], others[:, :2]), np.minimum(one[2:], others[:, 2:])
    shared = np.maximum(high - low, 0).prod(axis=1)
    areas = (others[:, 2] - others[:, 0]) * (others[:, 3] - others[:, 1])
    with np.errstate(all="ignore"):
        iou: Floats = shared / ((one[2] - one[0]) * (one[3] - one[1]) + areas - shared)
    return iou


def to_source(boxes: Floats, geometry: "Geometry") -> Floats:
    """Return boxes (K, 4) in pixels of the picture, clipped to it."""
    (scale_y, scale_x), (offset_y, offset_x) = geometry.scale_hw, geometry.offset_hw
    offsets, scales = (np.array(pair * 2, np.float32) for pair in ([offset_x, offset_y], [scale_x, scale_y]))
    limits = np.array([geometry.source_hw[1], geometry.source_hw[0]] * 2, np.float32)
    placed: Floats = np.clip((boxes - offsets) / scales, 0, limits)
    return placed
