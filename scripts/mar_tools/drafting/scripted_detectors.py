"""A detector of torchvision as `torch.jit.script` saves it: its weights and settings fit torchvision's own network.

The program takes a list of pictures and gives a list of boxes for each, which no engine can batch. Its tensors are
those of the network that was scripted, under the same names.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mar_tools.drafting.architectures import (
    Architecture,
    find_nearest,
    fit_architecture,
    search_detectors,
    without_counters,
)
from mar_tools.drafting.drafts import Noted
from mar_tools.drafting.script_objects import Program, ScriptObject, read_tensors
from vision_serving.errors import ConfigError
from vision_serving.graphs.sources import NetworkSource, build_network

DETECTOR_ANSWER = (
    "Tuple[Dict[str, Tensor], List[Dict[str, Tensor]]]"  # losses of the training, and boxes of each picture
)
TESTING = "testing"
# Arguments of a builder -> where the network keeps them.
SETTINGS = {
    "min_size": ("transform", "min_size"),
    "max_size": ("transform", "max_size"),
    "image_mean": ("transform", "image_mean"),
    "image_std": ("transform", "image_std"),
    "rpn_pre_nms_top_n_test": ("rpn", "_pre_nms_top_n", TESTING),
    "rpn_post_nms_top_n_test": ("rpn", "_post_nms_top_n", TESTING),
    "rpn_nms_thresh": ("rpn", "nms_thresh"),
    "rpn_score_thresh": ("rpn", "score_thresh"),
    "box_nms_thresh": ("roi_heads", "nms_thresh"),
    "box_detections_per_img": ("roi_heads", "detections_per_img"),
    "nms_thresh": ("nms_thresh",),
    "detections_per_img": ("detections_per_img",),
    "topk_candidates": ("topk_candidates",),
}
FROZEN = "FrozenBatchNorm2d"


@dataclass(frozen=True)
class Scripted:
    """model: of the recipe. files: its weights, by name."""

    architecture: Architecture
    model: dict[str, Any]
    files: dict[str, bytes]


def find_scripted(program: Program, path: Path, asked: str | None) -> Scripted:
    """Return the network that was scripted. asked: its name, where the user says it.

    Raises ConfigError where the tensors are those of no detector of torchvision.
    """
    shapes = without_counters(program.shapes)
    found = search_detectors(shapes) if asked is None else fit_architecture(shapes, asked)
    if not found:
        near = find_nearest(shapes)
        told = f"{near.fitting} fit {near.name}" if near else "none is near"
        raise ConfigError(
            f"{path.name}: a detector that torch.jit.script saved, which takes pictures one by one and gives "
            f"{program.answer}. Its weights can be served by their network, but its {len(shapes)} tensors are those of "
            f"no detector of torchvision ({told}). Give the file with the class of the network and its "
            "model.state_dict(): as an archive with --model-file, or by `source: python` (docs/use/own_models.md)"
        )
    changed = {each: find_settings(program.root, each) for each in found}
    best = min(found, key=lambda each: len(changed[each]))
    file = f"{path.stem}.pth"
    buffer = io.BytesIO()
    torch.save(dict(read_tensors(path)), buffer)
    why = f"all {len(shapes)} tensors of the program fit"
    arguments = {**best.arguments, **changed[best]}
    model = {
        "source": best.library,
        "name": Noted(best.name, why),
        **({"arguments": Noted(arguments, "as the program has them")} if arguments else {}),
        **find_norm_eps(program.root, best),
        "weights": file,
    }
    return Scripted(best, model, {file: buffer.getvalue()})


def find_settings(root: ScriptObject, architecture: Architecture) -> dict[str, Any]:
    """Return the arguments of the builder that make the settings of the program, where its defaults do not."""
    network = _build(architecture)
    own = {name: _plain(root.find(*place)) for name, place in SETTINGS.items()}
    return {name: value for name, value in own.items() if value is not None and value != _plain(_find(network, name))}


def find_norm_eps(root: ScriptObject, architecture: Architecture) -> Mapping[str, float]:
    """Return the epsilon of frozen batch norms, which published weights of torchvision set to 0."""
    stated = {part.find("eps") for part in root.parts() if part.name.endswith(FROZEN)}
    built = {module.eps for module in _build(architecture).modules() if type(module).__name__ == FROZEN}
    return {"norm_eps": stated.pop()} if len(stated) == 1 and None not in stated and stated != built else {}


def _build(architecture: Architecture) -> nn.Module:
    values = {"source": architecture.library, "name": architecture.name, "arguments": architecture.arguments}
    with torch.device("meta"):
        return build_network(NetworkSource.model_validate(values), Path())


def _find(network: nn.Module, name: str) -> Any:
    found: Any = network
    for part in SETTINGS[name]:
        found = found.get(part) if isinstance(found, dict) else getattr(found, part, None)
    return found


def _plain(value: Any) -> Any:
    """Return it as a recipe writes it: one size of several as a number."""
    if isinstance(value, tuple | list):
        return value[0] if len(value) == 1 else list(value)
    return value
