"""What an export answered to the verification images, kept beside its folder for the report of the build."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from mar_tools.verification.observations import Observation
from vision_serving.results.postprocessing import score_classes

# Of one image, best first: `class_ids` (K,) and `scores` (K,). A detector's are of any score, and have `source_boxes`
# (K, 4) xyxy in pixels of the image; turned ones `corners` (K, 4, 2) in parts of those, or NaN. A classifier's are the
# BEST, and with independent scores the MOST_LABELS with their `thresholds` (K,). Of an embedding, `images` (K,) are the
# nearest, and their cosines the scores.
Answer = Mapping[str, Tensor]

BEST = 5
MOST_LABELS = 1000  # for the average precision of each class; of more labels the rest counts as 0


def read_answers(seen: Sequence[Observation]) -> list[Answer]:
    """Return the part of observations that people read."""
    if "embedding" in seen[0]:
        return _find_neighbours(torch.stack([each["embedding"] for each in seen]))
    return [_read_boxes(each) if "source_boxes" in each else _read_classes(each) for each in seen]


def _read_boxes(seen: Observation) -> Answer:
    answer = {name: seen[name] for name in ("class_ids", "scores", "source_boxes")}
    if "corners" in seen:
        answer["corners"] = torch.full((len(seen["scores"]), 4, 2), torch.nan)
        answer["corners"][: len(seen["corners"])] = seen["corners"]
    return answer


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
    counts = tensors.pop("counts").tolist()
    parts = {name: values.split(counts) for name, values in tensors.items()}
    return [{name: parts[name][index] for name in parts} for index in range(len(counts))]


def _file_of(export: Path) -> Path:
    return export.with_name(f"{export.name}.answers.safetensors")


def _key(sha256: str, paths: Sequence[Path]) -> str:
    names = "\0".join(map(str, paths)).encode(errors="surrogateescape")
    return f"{sha256} {hashlib.sha256(names).hexdigest()}"
