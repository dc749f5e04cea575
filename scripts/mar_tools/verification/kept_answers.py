"""What an export answered to the verification images, kept beside its folder for the report of the build."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mar_tools.verification.observations import Observation

# Of one image, best first: `class_ids` (K,) and `scores` (K,). A detector's are of any score, and have `source_boxes`
# (K, 4) xyxy in pixels of the image; a classifier's are the BEST.
Answer = Mapping[str, Tensor]

BEST = 5


def read_answer(seen: Observation) -> Answer:
    """Return the part of an observation that people read."""
    if "source_boxes" in seen:
        return {name: seen[name] for name in ("class_ids", "scores", "source_boxes")}
    scores, class_ids = seen["logits"].softmax(dim=0).topk(min(BEST, len(seen["logits"])))
    return {"class_ids": class_ids, "scores": scores}


def keep_answers(export: Path, sha256: str, paths: Sequence[Path], answers: Sequence[Answer]) -> None:
    """Write `<export>.answers.safetensors`. sha256: of the artifact that gave them."""
    tensors = {name: torch.cat([answer[name] for answer in answers]).contiguous() for name in answers[0]}
    tensors["counts"] = torch.tensor([len(answer["scores"]) for answer in answers])
    save_file(tensors, _file_of(export), {"key": _key(sha256, paths)})
    _file_of(export).chmod(0o644)  # safetensors makes it for the owner alone


def read_answers(export: Path, sha256: str, paths: Sequence[Path]) -> list[Answer] | None:
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
