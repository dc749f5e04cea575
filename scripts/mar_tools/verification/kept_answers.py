"""What an export answered to the verification images, kept beside its folder for the report of the build."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from mar_tools.verification.observations import Observation
from vision_serving.results.postprocessing import score_classes

# Of one image, best first: `class_ids` (K,) and `scores` (K,). A detector's are of any score, and have `source_boxes`
# (K, 4) xyxy in pixels of the image. In parts of those are `corners` (K, 4, 2) and `keypoints` (K, P, 3), of x, y and
# score, NaN where there are none, and `masks` (K, CELLS, CELLS) of bool. A classifier's are the BEST, and with
# independent scores the MOST_LABELS with their `thresholds` (K,). Of an embedding, `images` (K,) are the nearest, and
# their cosines the scores.
Answer = Mapping[str, Tensor]

BEST = 5
CELLS = 28  # along each side of a mask, as torchvision's have
MOST_LABELS = 1000  # for the average precision of each class; of more labels the rest counts as 0


def read_answers(seen: Sequence[Observation]) -> list[Answer]:
    """Return the part of observations that people read."""
    if "embedding" in seen[0]:
        return _find_neighbours(torch.stack([each["embedding"] for each in seen]))
    return [_read_boxes(each) if "source_boxes" in each else _read_classes(each) for each in seen]


def _read_boxes(seen: Observation) -> Answer:
    answer = {name: seen[name] for name in ("class_ids", "scores", "source_boxes")}
    count = len(answer["scores"])
    for name in ("corners", "keypoints"):
        if name in seen:
            answer[name] = _extend(seen[name], count, torch.nan)
    if "masks" in seen:
        whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(len(seen["masks"]), 4)
        answer["masks"] = _extend(_cut_masks(seen["masks"], whole), count, False)
    if "image_masks" in seen:
        parts = seen["boxes"][: len(seen["image_masks"])] / seen["size_hw"].flip(0).repeat(2)
        answer["masks"] = _extend(_cut_masks(seen["image_masks"], parts), count, False)
    return answer


def _extend(values: Tensor, count: int, missing: float) -> Tensor:
    """Return (count, ...) of the values of the first boxes."""
    return torch.cat((values, values.new_full((count - len(values), *values.shape[1:]), missing)))


def _cut_masks(masks: Tensor, boxes_xyxy: Tensor) -> Tensor:
    """Return whether each box, in parts of its mask's grid (K, H, W), is inside, as (K, CELLS, CELLS)."""
    height, width = masks.shape[1:]
    left, top, right, bottom = boxes_xyxy[:, :, None].unbind(1)
    places = (torch.arange(CELLS) + 0.5) / CELLS
    rows = ((top + places * (bottom - top)) * height).long().clamp(0, height - 1)
    columns = ((left + places * (right - left)) * width).long().clamp(0, width - 1)
    return masks[torch.arange(len(masks))[:, None, None], rows[:, :, None], columns[:, None, :]] == 1


def _read_classes(seen: Observation) -> Answer:
    count = len(seen["logits"])
    if "thresholds" in seen:
        scores, class_ids = score_classes(seen["logits"], "sigmoid").topk(min(MOST_LABELS, count))
        return {"class_ids": class_ids, "scores": scores, "thresholds": seen["thresholds"][class_ids]}
    scores, class_ids = score_classes(seen["logits"]).topk(min(BEST, count))
    return {"class_ids": class_ids, "scores": scores}


def _find_neighbours(vectors: Tensor) -> list[Answer]:
    vectors = functional.normalize(vectors, dim=1)
    cosines = (vectors @ vectors.T).fill_diagonal_(-2)
    scores, images = cosines.topk(min(BEST, len(vectors) - 1), dim=1)
    return [{"images": ids, "scores": own} for ids, own in zip(images, scores, strict=True)]


def keep_answers(export: Path, sha256: str, paths: Sequence[Path], seen: Sequence[Observation]) -> None:
    """Write `<export>.answers.safetensors`. sha256: of the artifact that gave them."""
    answers = read_answers(seen)
    tensors = {name: torch.cat([answer[name] for answer in answers]).contiguous() for name in answers[0]}
    if "masks" in tensors:  # as bits: those of a thousand pictures with a hundred boxes each would have 100 MB
        tensors["masks"] = torch.from_numpy(np.packbits(tensors["masks"].numpy(), axis=2))
    tensors["counts"] = torch.tensor([len(answer["scores"]) for answer in answers])
    save_file(tensors, _file_of(export), {"key": _key(sha256, paths)})
    _file_of(export).chmod(0o644)  # safetensors makes it for the owner alone


def find_answers(export: Path, sha256: str, paths: Sequence[Path]) -> list[Answer] | None:
    """Return the answers to these images, in order; None where those of this artifact were not kept."""
    try:
        with safe_open(_file_of(export), "pt") as kept:
            if (kept.metadata() or {}).get("key") != _key(sha256, paths):
                return None
            tensors = {name: kept.get_tensor(name) for name in kept.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError):
        return None
    if "masks" in tensors:
        tensors["masks"] = torch.from_numpy(np.unpackbits(tensors["masks"].numpy(), axis=2, count=CELLS)).bool()
    counts = tensors.pop("counts").tolist()
    parts = {name: values.split(counts) for name, values in tensors.items()}
    return [{name: parts[name][index] for name in parts} for index in range(len(counts))]


def _file_of(export: Path) -> Path:
    return export.with_name(f"{export.name}.answers.safetensors")


def _key(sha256: str, paths: Sequence[Path]) -> str:
    names = "\0".join(map(str, paths)).encode(errors="surrogateescape")
    return f"{sha256} {hashlib.sha256(names).hexdigest()}"
