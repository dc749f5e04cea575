"""What the reference answered to the verification pictures, and what is known of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from mar_tools.verification.labelled import Truth
from mar_tools.verification.observations import Observation
from vision_serving.config import HandlerConfig
from vision_serving.graphs.outputs import OutputFormat

ENOUGH_IMAGES = 8  # fewer say nothing about others
SAME = 1e-4  # in parts of what the values differ by within a picture, or of a pixel


@dataclass(frozen=True)
class Seen:
    """What the reference answered. differing: whether the pictures differ. own: whether they are the owner's."""

    observations: Sequence[Observation]
    config: HandlerConfig
    output: OutputFormat
    labels: Sequence[str]
    truth: Sequence[Truth] | None = None
    differing: bool = True
    own: bool = False

    @property
    def true_classes(self) -> int:
        """Return how many classes are known to be in the pictures, 0 where nothing is known."""
        if self.config.task == "detection":
            return len({class_id for image in self.truth or () for class_id in image["labels"].tolist()})
        return len({tuple(image["class_ids"].tolist()) for image in self.truth or ()})


Found = str | None  # what is odd, in words
Check = Callable[[Seen], Found]
Range = tuple[float, float]


def find_range(values: Tensor) -> Range:
    return (float(f"{float(values.min()):.6g}"), float(f"{float(values.max()):.6g}")) if values.numel() else (0.0, 0.0)
