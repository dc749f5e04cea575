"""What is done to a network, in this order: smaller pictures, fewer channels, a teacher, the values of int8."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from vision_serving.graphs.fake_quantization import Activations
from vision_serving.validation import StrictModel


class Steps(StrictModel):
    """One result.

    size: side of the square picture in pixels. prune: share of the channels that goes. teacher: a recipe whose answers
    are learnt. hint: names of layers, of the network and of its teacher, whose features are learnt too.
    quantise: how the inputs of its layers have the values of int8.
    """

    size: Annotated[int, Field(gt=0)] | None = None
    prune: Annotated[float, Field(gt=0, lt=1)] | None = None
    teacher: Path | None = None
    hint: tuple[str, str] | None = None
    quantise: Activations | None = None

    @property
    def trains_floats(self) -> bool:
        """Return whether something is to be learnt before the values are those of int8."""
        return any(value is not None for value in (self.size, self.prune, self.teacher))

    def describe(self) -> str:
        """Return them as a name: `size 64, prune 0.5, distilled`."""
        parts = [f"size {self.size}"] if self.size else []
        parts += [f"prune {self.prune:g}"] if self.prune else []
        parts += ["distilled"] if self.teacher else []
        parts += ["int8 trained"] if self.quantise else []
        return ", ".join(parts) or "as it is"

    def folder_name(self) -> str:
        """Return them as the name of a folder: `size64-prune0.5-distilled`."""
        return self.describe().replace(", ", "-").replace(" ", "")
