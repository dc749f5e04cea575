"""How far a detector's boxes in mirrored pictures are from where the mirrored things are.

A form of boxes in which y is taken for x, or a corner for the centre, gives possible boxes in the wrong places. What a
mirror does to them tells: of a thing's centre x becomes width - x, and y stays. No other form does that.
"""

from torch import Tensor

from mar_tools.verification.layouts import FROM_PIXELS
from vision_serving.graphs.detections import TO_PIXELS
from vision_serving.graphs.outputs import BoxForm

SMALLEST = 1e-12
FOUND_AGAIN = 0.08  # parts of the width and height; a weak detector of digits is 0.06 off
CLEARLY = 0.5  # of the error of the form that was given
IN_MOST = 0.85  # of the pictures


Errors = dict[BoxForm, Tensor]  # (N,), one of each picture


def find_errors(found: tuple[Tensor, Tensor], mirrored: tuple[Tensor, Tensor], size_hw: tuple[float, float]) -> Errors:
    """Return how far centres are off in each picture with each form of boxes, in parts of its width and height.

    found, mirrored: boxes (N, Q, 4) as the network gave them, and scores (N, Q), of pictures and of the same pictures
    mirrored left to right. size_hw: of a picture in the unit of the boxes, (1, 1) where they are parts of it.
    """
    height, width = size_hw
    errors: Errors = {}
    for form in FROM_PIXELS:
        there, here = (_find_centres(TO_PIXELS[form](boxes), scores) for boxes, scores in (found, mirrored))
        errors[form] = (there[:, 0] + here[:, 0] - width).abs() / width + (there[:, 1] - here[:, 1]).abs() / height
    return errors


def _find_centres(boxes: Tensor, scores: Tensor) -> Tensor:
    """Return the mean centre (N, 2) of the boxes of each picture, those of high scores counting most."""
    weights = scores.clamp(min=0) ** 2
    centres = (boxes[..., :2] + boxes[..., 2:]) / 2
    return (centres * weights[..., None]).sum(1) / weights.sum(1, keepdim=True).clamp(min=SMALLEST)


def find_better_form(errors: Errors, given: BoxForm, least: float) -> BoxForm | None:
    """Return the form that is clearly better than the given one, whose error is `least` or more; None without one.

    A network that knows nothing of the pictures finds nothing again in any form, or in some pictures by chance.
    """
    best = min(errors, key=lambda form: float(errors[form].mean()))
    before, after = float(errors[given].mean()), float(errors[best].mean())
    in_most = float((errors[best] < errors[given]).float().mean()) >= IN_MOST
    return best if before >= least and after <= min(FOUND_AGAIN, CLEARLY * before) and in_most else None
