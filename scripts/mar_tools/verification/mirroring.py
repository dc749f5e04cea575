"""How far a detector's boxes in mirrored pictures are from where the mirrored things are.

A form of boxes in which y is taken for x, or a corner for the centre, gives possible boxes in the wrong places. What a
mirror does to them tells: of a thing's centre x becomes width - x, and y stays. No other form does that.
"""

from torch import Tensor

from mar_tools.verification.layouts import FROM_PIXELS
from vision_serving.graphs.detections import TO_PIXELS
from vision_serving.graphs.outputs import BoxForm

SMALLEST = 1e-12
CLEARLY = 0.5  # of the error of the form that was given


def find_errors(
    found: tuple[Tensor, Tensor], mirrored: tuple[Tensor, Tensor], size_hw: tuple[float, float]
) -> dict[BoxForm, float]:
    """Return how far centres are off with each form of boxes, in parts of the width and height, over all pictures.

    found, mirrored: boxes (N, Q, 4) as the network gave them, and scores (N, Q), of pictures and of the same pictures
    mirrored left to right. size_hw: of a picture in the unit of the boxes, (1, 1) where they are parts of it.
    """
    height, width = size_hw
    errors: dict[BoxForm, float] = {}
    for form in FROM_PIXELS:
        there, here = (_find_centres(TO_PIXELS[form](boxes), scores) for boxes, scores in (found, mirrored))
        off = (there[:, 0] + here[:, 0] - width).abs() / width + (there[:, 1] - here[:, 1]).abs() / height
        errors[form] = float(off.mean())
    return errors


def _find_centres(boxes: Tensor, scores: Tensor) -> Tensor:
    """Return the mean centre (N, 2) of the boxes of each picture, those of high scores counting most."""
    weights = scores.clamp(min=0) ** 2
    centres = (boxes[..., :2] + boxes[..., 2:]) / 2
    return (centres * weights[..., None]).sum(1) / weights.sum(1, keepdim=True).clamp(min=SMALLEST)


def find_better_form(errors: dict[BoxForm, float], given: BoxForm, least: float) -> BoxForm | None:
    """Return the form that is clearly better than the given one, whose error is `least` or more; None without one."""
    best = min(errors, key=lambda form: errors[form])
    return best if errors[given] >= least and errors[best] <= CLEARLY * errors[given] else None
