"""Which four numbers a box has: their values tell it, and where they leave it open, the boxes of mirrored pictures."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from mar_tools.drafting.drafts import assume, without_notes
from mar_tools.verification.mirroring import find_better_form, find_errors
from vision_serving.errors import ConfigError
from vision_serving.geometry import SizeHW
from vision_serving.graphs.detections import TO_PIXELS
from vision_serving.graphs.output_decoder import OutputDecoder
from vision_serving.graphs.outputs import FORMS, BoxForm, OutputFormat

MIRRORED = ("boxes_scores", "boxes_scores_labels", "end_to_end", "yolo")
ALMOST_ALL = 0.99
MOST = 0.9  # of the boxes of a decoded head
FARTHEST = 1.5  # sides of a picture that a centre may be from its corner
EDGE = 0.02  # of the centres, which may be anywhere
LEAST_SPREAD = 0.25  # a head that looks everywhere has boxes everywhere
LARGEST_PART = 2.0  # boxes that are parts of the image hardly leave it
LOST_ERROR = 0.2  # parts of the image: no detector is so far off with things that it finds again
LOST = (
    "whether its boxes are read right: in mirrored pictures they are {before:.0%} of the picture away from the "
    "mirrored places. Give pictures that it knows with `--images`. Where that stays, its head is not decoded, and "
    "needs a `decode`"
)
LEAST_ERROR = 0.02  # parts of the image: a detector finds things in a mirrored picture that near to their place


def read_boxes(boxes: Tensor, size_hw: SizeHW, usual: BoxForm) -> dict[str, Any]:
    """Tell corners from centre and size, and parts of the image from pixels, by the values of all boxes."""
    found: dict[str, Any] = {}
    first, second = boxes[..., :2], boxes[..., 2:]
    ordered = float((second > first).all(-1).float().mean())
    outside = float((first + second > torch.tensor([size_hw[1], size_hw[0]])).any(-1).float().mean())
    form = "xyxy" if ordered >= ALMOST_ALL else "cxcywh" if usual == "cxcywh" or ordered < 0.5 else usual
    if form != usual:
        found["box_format"] = assume(form, f"in {ordered:.0%} of the boxes the second corner is the larger")
    if float(boxes.flatten().abs().sort().values[int(0.99 * (boxes.numel() - 1))]) <= LARGEST_PART and outside == 0:
        found["normalized"] = assume(True, f"coordinates from {float(boxes.min()):.3g} to {float(boxes.max()):.3g}")
    return found


def check_boxes(boxes: Tensor, found: Mapping[str, Any], size_hw: SizeHW, usual: BoxForm) -> None:
    """Check that boxes (..., 4) of all places of a picture are possible, read as `found` says.

    Raises ConfigError for what lacks its grid or anchors, or is no box.
    """
    plain = without_notes(found)
    height, width = (1, 1) if plain.get("normalized") else size_hw
    corners = TO_PIXELS[plain.get("box_format", usual)](boxes).flatten(0, -2)
    centres, sizes = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
    possible = (sizes >= 0) & (centres.abs() <= FARTHEST * max(height, width))
    if float(possible.all(-1).float().mean()) >= MOST and _spread(centres, (height, width)) >= LEAST_SPREAD:
        return
    raise ConfigError(
        f"what should be its boxes goes from {float(boxes.min()):.3g} to {float(boxes.max()):.3g}, and no usual form "
        "makes boxes of it that lie all over a picture. So its head is not decoded: its grid or anchors are missing. "
        "Export it with its decoding, or write a `decode` (docs/use/own_models.md, a package with its own decode)"
    )


def _spread(centres: Tensor, size_hw: tuple[float, float]) -> float:
    """Return over which part of a picture most centres (B, 2) lie, the larger one of width and height."""
    ordered = centres.sort(0).values
    end = len(ordered) - 1
    ranges = ordered[round((1 - EDGE) * end)] - ordered[round(EDGE * end)]
    return max(float(ranges[0]) / size_hw[1], float(ranges[1]) / size_hw[0])


def find_boxes(outputs: Mapping[str, Tensor], size_hw: SizeHW) -> str | None:
    """Return which value (N, Q, 4) is the boxes; the scores of four classes have that shape, too."""
    found = [name for name, values in outputs.items() if values.dim() == 3 and values.shape[-1] == 4]
    for name in found if len(found) > 1 else ():
        with suppress(ConfigError):
            check_boxes(outputs[name], read_boxes(outputs[name], size_hw, "xyxy"), size_hw, "xyxy")
            return name
    return found[0] if found else None


def choose_by_mirroring(
    output: Mapping[str, Any], answers: Any, mirrored: Any, images: Tensor
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return `output` with the form in which boxes of mirrored pictures are the mirrored boxes, and what is unsure.

    answers, mirrored: what the network gave for images (N, C, H, W), and for them mirrored left to right.
    """
    plain = without_notes(output)
    if plain.get("format") not in MIRRORED or "strides" in plain or plain.get("box_format") == "xywhr":
        return dict(output), ()
    given: BoxForm = plain.get("box_format", FORMS[plain["format"]].box_form)
    decoder = OutputDecoder(
        "detection", OutputFormat.model_validate({**plain, "box_format": "xyxy", "normalized": None})
    )
    found, reflected = (_decode(decoder, values, images) for values in (answers, mirrored))
    size_hw = (1.0, 1.0) if plain.get("normalized") else (float(images.shape[-2]), float(images.shape[-1]))
    errors = find_errors(found, reflected, size_hw)
    best = find_better_form(errors, given, LEAST_ERROR)
    before = float(errors[given].mean())
    if best is None:
        return dict(output), (LOST.format(before=before),) if before >= LOST_ERROR else ()
    after = float(errors[best].mean())
    why = f"boxes of mirrored pictures are {after:.1%} off their place, and {before:.1%} with {given}"
    return {**output, "box_format": assume(best, why)}, ()


def _decode(decoder: OutputDecoder, answers: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return boxes (N, Q, 4) as they were given, and the best score (N, Q) of each."""
    found = decoder(answers, images)
    scores = found["scores"]
    return found["boxes"], scores if scores.dim() == 2 else scores.amax(-1)
