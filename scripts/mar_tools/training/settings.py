"""What a training can be told, with defaults that suit a fine-tuning."""

from typing import Annotated, Literal

from pydantic import Field

from vision_serving.validation import StrictModel

Count = Annotated[int, Field(gt=0)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]


class Settings(StrictModel):
    """Of one training; those of a search differ in what `searching.py` names.

    patience: epochs without a better one, after which it ends. augment: see `pictures.new_change`. flip: whether left
    and right may change places. average: whether the weights are averaged over the training (EMA). amp: 16-bit sums
    where the device is faster with them; `auto` on GPUs alone.
    """

    epochs: Count = 20
    batch_size: Annotated[int, Field(gt=1)] = 32  # batch norm has no statistics of one
    learning_rate: Positive = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.02
    label_smoothing: Share = 0.05
    augment: Literal["none", "light", "standard"] = "standard"
    flip: bool = True
    average: bool = True
    patience: Count = 8
    amp: Literal["auto", "on", "off"] = "auto"
    seed: Annotated[int, Field(ge=0)] = 0
