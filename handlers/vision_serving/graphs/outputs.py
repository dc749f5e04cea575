"""What a network gives, and how that becomes the named outputs of an artifact.

    task             format          the network gives
    classification   logits          logits (N, C)
                     probabilities   scores (N, C) that its own last layer made
    embedding        vector          a vector an image (N, D), or what `pool` makes one of
    detection        boxes_scores    boxes (N, Q, 4) xyxy in model pixels, scores (N, Q, C) in [0, 1]
                     yolo            one tensor of boxes, an objectness perhaps, and class scores
                     detr            logits (N, Q, C), with softmax (N, Q, C + 1), and pred_boxes (N, Q, 4), relative

Named values are looked up in a dict, or taken in that order from a tuple.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from vision_serving.errors import ConfigError
from vision_serving.options import Activation, Task
from vision_serving.validation import StrictModel

FormatName = Literal["logits", "probabilities", "vector", "boxes_scores", "yolo", "detr"]
# The first is what is meant where a recipe names none.
TASK_FORMATS: dict[Task, tuple[FormatName, ...]] = {
    "classification": ("logits", "probabilities"),
    "embedding": ("vector",),
    "detection": ("boxes_scores", "yolo", "detr"),
}
NAMED_VALUES: dict[str, tuple[str, ...]] = {"boxes_scores": ("boxes", "scores"), "detr": ("logits", "pred_boxes")}
FORMAT_KEYS: dict[FormatName | None, set[str]] = {
    "logits": {"index", "activation"},
    "probabilities": {"index", "activation"},
    "vector": {"index", "pool"},
    "yolo": {"layout", "objectness", "boxes", "normalized", "activation", "index"},
    "detr": {"activation"},
    "boxes_scores": set(),
    None: {"index", "activation", "pool"},
}
ACTIVATIONS: dict[FormatName | None, tuple[str, ...]] = {
    "yolo": ("none", "sigmoid"),
    **dict.fromkeys(("logits", "probabilities", "detr", None), ("softmax", "sigmoid")),
}
SMALLEST_PROBABILITY = 1e-12  # its logarithm is finite, also in half precision
SMALLEST_INDEPENDENT = 1e-6  # so that 1 less it is not 1 in float32
VECTORS = ("image_embeds", "pooler_output", "last_hidden_state")  # of transformers; the first that is there


class OutputFormat(StrictModel):
    """The `output:` of a recipe's model.

    format       one of the table above; the task's first one when it is missing
    index        which value of a tuple or list holds the network's answer (not for formats of two values)
    layout       yolo: `rows` (N, Q, 4 + C) or `columns` (N, 4 + C, Q)
    objectness   yolo: whether a score of any object follows the box; a class's score is then multiplied by it
    boxes        yolo: `xywh` (centre, size) or `xyxy`
    normalized   yolo: whether boxes are parts of the image, not model pixels
    pool         vector: how a map (N, D, H, W) or tokens (N, L, D) become one: `mean`, or the `first` token
    activation   what makes scores of the values: classes `softmax` (the default: one class an image) or `sigmoid`
                 (independent scores: any number of classes); yolo `none` or `sigmoid`; detr `softmax` (the last class
                 is "no object", each box has one class) or `sigmoid`
    """

    format: FormatName | None = None
    index: Annotated[int, Field(ge=0)] | None = None
    layout: Literal["rows", "columns"] | None = None
    objectness: bool | None = None
    boxes: Literal["xywh", "xyxy"] | None = None
    normalized: bool | None = None
    pool: Literal["mean", "first"] | None = None
    activation: Literal["none", "sigmoid", "softmax"] | None = None

    @model_validator(mode="after")
    def _keys_fit_format(self) -> "OutputFormat":
        given = {name for name, value in self.model_dump().items() if value is not None} - {"format"}
        if given - FORMAT_KEYS[self.format]:
            allowed, others = sorted(FORMAT_KEYS[self.format]), sorted(given - FORMAT_KEYS[self.format])
            raise ValueError(f"output format {self.format!r} does not take {others}; it takes {allowed}")
        needed = {"yolo": {"layout", "objectness"}, "detr": {"activation"}}.get(self.format or "", set())
        if needed - given:
            raise ValueError(f"output format {self.format!r} needs {sorted(needed - given)}")
        allowed_activations = ACTIVATIONS.get(self.format, ())
        if self.activation is not None and self.activation not in allowed_activations:
            raise ValueError(f"activation of {self.format!r} is one of {allowed_activations}, got {self.activation!r}")
        return self

    def name_for(self, task: Task) -> FormatName:
        """Raises ConfigError for a format of another task, and for an index into two values."""
        if self.format is not None and self.format not in TASK_FORMATS[task]:
            raise ConfigError(
                f"output format {self.format!r} is not for {task}; expected one of {list(TASK_FORMATS[task])}"
            )
        name = self.format or TASK_FORMATS[task][0]
        if self.index is not None and name in NAMED_VALUES:
            raise ConfigError(f"output format {name!r} takes two values, so no `index`")
        for key in ("activation", "pool"):
            if getattr(self, key) is not None and key not in FORMAT_KEYS[name]:
                raise ConfigError(f"output format {name!r} does not take {key!r}")
        return name

    def class_activation(self, task: Task) -> Activation | None:
        """Return what is to make scores of a classifier's logits; None for the usual one, and for other tasks."""
        return "sigmoid" if task == "classification" and self.activation == "sigmoid" else None


class OutputDecoder(nn.Module):
    """The values of a network (see `pick_values`) and its images (N, 3, H, W) -> named outputs of the artifact."""

    def __init__(self, task: Task, output: OutputFormat) -> None:
        super().__init__()
        self.format = output.name_for(task)
        self.output = output

    def forward(self, values: tuple[Tensor, ...], images: Tensor) -> dict[str, Tensor]:
        return DECODERS[self.format](values, images, self.output)

    def pick_values(self, outputs: Any, network_name: str) -> tuple[Tensor, ...]:
        """Return what the decoder needs of a network's answer. Raises ConfigError when that has another form."""
        names = NAMED_VALUES.get(self.format)
        if names is None:
            values: tuple[Any, ...] = (_pick(outputs, self.output.index),)
        elif isinstance(outputs, Mapping):
            values = tuple(outputs.get(name) for name in names)
        else:
            values = tuple(outputs) if isinstance(outputs, (tuple, list)) and len(outputs) == len(names) else ()
        dims = [value.dim() if isinstance(value, Tensor) else None for value in values]
        if dims not in (EXPECTED_DIMS[self.format], *POOLED_DIMS.get(self.format, ())):
            raise ConfigError(f"{EXPECTED[self.format]}, {network_name} gave {_name_form(outputs)}")
        return values


def _pick(outputs: Any, index: int | None) -> Any:
    if isinstance(outputs, Mapping) and index is None:
        return next((outputs[name] for name in ("logits", *VECTORS) if name in outputs), outputs)
    if isinstance(outputs, Mapping) and index is not None:
        outputs = tuple(outputs.values())
    if isinstance(outputs, (tuple, list)) and index is not None:
        return outputs[index] if index < len(outputs) else None
    return outputs


def _name_form(outputs: object) -> str:
    if isinstance(outputs, Tensor):
        return f"a tensor {tuple(outputs.shape)}"
    if isinstance(outputs, (tuple, list)):
        return f"a {type(outputs).__name__} of {len(outputs)}; `output: index:` picks one"
    return f"a {type(outputs).__name__}" + (f" of {sorted(outputs)}" if isinstance(outputs, Mapping) else "")


EXPECTED = {
    "logits": "a classifier gives logits (N, C)",
    "probabilities": "a classifier gives probabilities (N, C)",
    "vector": "an embedding is a tensor (N, D), or one that `output: pool:` makes a vector of",
    "boxes_scores": "a detector gives {'boxes': (N, Q, 4), 'scores': (N, Q, C)}",
    "yolo": "a yolo head gives one tensor of three dimensions",
    "detr": "a detr head gives {'logits': (N, Q, C), 'pred_boxes': (N, Q, 4)}",
}
EXPECTED_DIMS = {
    "logits": [2],
    "probabilities": [2],
    "vector": [2],
    "boxes_scores": [3, 3],
    "yolo": [3],
    "detr": [3, 3],
}
POOLED_DIMS = {"vector": ([3], [4])}


def decode_logits(values: tuple[Tensor, ...], _: Tensor, __: OutputFormat) -> dict[str, Tensor]:
    return {"logits": values[0]}


def decode_vector(values: tuple[Tensor, ...], _: Tensor, output: OutputFormat) -> dict[str, Tensor]:
    """Raises ConfigError for several vectors an image without `pool`."""
    vector = values[0]
    if vector.dim() == 3 and output.pool is not None:
        vector = vector[:, 0] if output.pool == "first" else vector.mean(dim=1)
    elif vector.dim() == 4 and output.pool == "mean":
        vector = vector.mean(dim=(2, 3))
    elif vector.dim() == 4 and tuple(vector.shape[2:]) == (1, 1):
        vector = vector.flatten(1)
    if vector.dim() != 2:
        raise ConfigError(
            f"the network gives {tuple(vector.shape)} and not one vector an image; say `output: {{pool: mean}}`, or "
            "of tokens `pool: first`"
        )
    return {"embedding": vector}


def decode_probabilities(values: tuple[Tensor, ...], _: Tensor, output: OutputFormat) -> dict[str, Tensor]:
    """Return logits whose softmax, or sigmoid, is those probabilities."""
    if output.activation == "sigmoid":
        scores = values[0].clamp(min=SMALLEST_INDEPENDENT, max=1 - SMALLEST_INDEPENDENT)
        return {"logits": (scores / (1 - scores)).log()}
    return {"logits": values[0].clamp(min=SMALLEST_PROBABILITY).log()}


def decode_boxes_scores(values: tuple[Tensor, ...], _: Tensor, __: OutputFormat) -> dict[str, Tensor]:
    return {"boxes": values[0], "scores": values[1]}


def decode_yolo(values: tuple[Tensor, ...], images: Tensor, output: OutputFormat) -> dict[str, Tensor]:
    rows = values[0].transpose(1, 2) if output.layout == "columns" else values[0]
    first_class = 5 if output.objectness else 4
    if isinstance(rows.shape[-1], int) and rows.shape[-1] <= first_class:
        raise ConfigError(
            f"output layout {output.layout!r}: {rows.shape[-1]} values a box leave no class score behind "
            f"{first_class}; is the layout {'rows' if output.layout == 'columns' else 'columns'!r}?"
        )
    boxes, scores = rows[..., :4], rows[..., 4:]
    if output.activation == "sigmoid":
        scores = scores.sigmoid()
    if output.objectness:
        scores = scores[..., :1] * scores[..., 1:]
    if output.boxes != "xyxy":
        boxes = to_corners(boxes)
    return {"boxes": to_pixels(boxes, images) if output.normalized else boxes, "scores": scores}


def decode_detr(values: tuple[Tensor, ...], images: Tensor, output: OutputFormat) -> dict[str, Tensor]:
    logits, boxes = values
    if output.activation == "sigmoid":
        scores = logits.sigmoid()
    else:
        scores = logits.softmax(dim=-1)[..., :-1]
        class_ids = torch.arange(scores.shape[-1], device=scores.device)
        scores = scores * (class_ids == scores.argmax(dim=-1, keepdim=True))
    return {"boxes": to_pixels(to_corners(boxes), images), "scores": scores}


DECODERS: dict[str, Callable[[tuple[Tensor, ...], Tensor, OutputFormat], dict[str, Tensor]]] = {
    "logits": decode_logits,
    "probabilities": decode_probabilities,
    "vector": decode_vector,
    "boxes_scores": decode_boxes_scores,
    "yolo": decode_yolo,
    "detr": decode_detr,
}


def to_corners(boxes: Tensor) -> Tensor:
    """Return boxes (..., 4) from centre and size to xyxy."""
    x, y, width, height = boxes.unbind(-1)
    return torch.stack((x - width / 2, y - height / 2, x + width / 2, y + height / 2), dim=-1)


def to_pixels(boxes: Tensor, images: Tensor) -> Tensor:
    """Return boxes (..., 4) xyxy from parts of the images (N, 3, H, W) to their pixels."""
    height, width = images.shape[-2:]
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.stack((x1 * width, y1 * height, x2 * width, y2 * height), dim=-1)
