"""What a network gives: the `output:` of a recipe's model.

    task             format               the network gives
    classification   logits               logits (N, C)
                     probabilities        scores (N, C) that its own last layer made
    embedding        vector               a vector an image (N, D), or what `pool` makes one of
    detection        boxes_scores         boxes (N, Q, 4) and scores (N, Q, C)
                     boxes_scores_labels  labels (N, Q), boxes (N, Q, 4) and scores (N, Q): one class a box
                     end_to_end           rows (N, Q, 6): box, score, class, or in another `order`
                     yolo                 rows (N, Q, 4 + C): box, an objectness perhaps, class scores
                     detr                 logits (N, Q, C), with softmax (N, Q, C + 1), and pred_boxes (N, Q, 4), parts
                     (decode: FILE.py)    whatever the function `decode` of that file takes

Named values are looked up in a dict, or taken in that order from a tuple.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PrivateAttr, model_validator

from vision_serving.errors import ConfigError
from vision_serving.options import Activation, Task
from vision_serving.validation import StrictModel

FormatName = Literal[
    "logits", "probabilities", "vector", "boxes_scores", "boxes_scores_labels", "end_to_end", "yolo", "detr"
]
ScoreMaker = Literal["none", "sigmoid", "softmax"]
BoxForm = Literal["xyxy", "yxyx", "xywh", "cxcywh", "xywhr", "corners"]
RowPart = Literal["box", "score", "class", "skip"]


@dataclass(frozen=True)
class Form:
    """A form of answers. values: shapes by name; keys: what an `output:` may say of it beside `names`.

    aliases: what a single value is also called, the likeliest first. dims: numbers of dimensions that it may also have.
    """

    task: Task
    values: Mapping[str, str]
    keys: frozenset[str]
    needed: frozenset[str] = frozenset()
    activations: tuple[ScoreMaker, ...] = ()
    box_form: BoxForm = "xyxy"
    aliases: tuple[str, ...] = ()
    dims: tuple[int, ...] = ()


CLASSES = frozenset({"activation", "index"})
BOX, SCORES = {"box_format", "normalized"}, {"activation", "background"}
# The first of a task is what is meant where a recipe names none.
FORMS: dict[FormatName, Form] = {
    "logits": Form("classification", {"logits": "(N, C)"}, CLASSES, activations=("softmax", "sigmoid")),
    "probabilities": Form(
        "classification",
        {"probabilities": "(N, C)"},
        CLASSES,
        activations=("softmax", "sigmoid"),
        aliases=("logits",),
    ),
    "vector": Form(
        "embedding",
        {"vector": "(N, D)"},
        frozenset({"index", "pool"}),
        aliases=("logits", "image_embeds", "pooler_output", "last_hidden_state"),  # of transformers
        dims=(3, 4),
    ),
    "boxes_scores": Form(
        "detection",
        {"boxes": "(N, Q, 4)", "scores": "(N, Q, C)"},
        frozenset(BOX | SCORES),
        activations=("none", "sigmoid", "softmax"),
    ),
    "boxes_scores_labels": Form(
        "detection",
        {"labels": "(N, Q)", "boxes": "(N, Q, 4)", "scores": "(N, Q)"},
        frozenset(BOX | SCORES),
        activations=("none", "sigmoid"),
    ),
    "end_to_end": Form(
        "detection", {"rows": "(N, Q, 6)"}, frozenset({*BOX, "background", "index", "layout", "masks", "order"})
    ),
    "yolo": Form(
        "detection",
        {"rows": "(N, Q, 4 + C)"},
        frozenset({*BOX, "activation", "index", "layout", "masks", "objectness", "strides"}),
        needed=frozenset({"layout", "objectness"}),
        activations=("none", "sigmoid"),
        box_form="cxcywh",
    ),
    "detr": Form(
        "detection",
        {"logits": "(N, Q, C)", "pred_boxes": "(N, Q, 4)"},
        frozenset({"activation"}),
        needed=frozenset({"activation"}),
        activations=("softmax", "sigmoid"),
        box_form="cxcywh",
    ),
}
DECODED = Form(
    "detection", {}, frozenset({*BOX, *SCORES, "decode"}), activations=FORMS["boxes_scores"].activations
)  # what a file's own `decode` gives
PROTOTYPES = {"prototypes": "(N, P, H, W)"}
ROW: tuple[RowPart, ...] = ("box", "score", "class")


class OutputFormat(StrictModel):
    """The `output:` of a recipe's model.

    format       one of the table above; the task's first one when it is missing
    names        which of the network's values is which: `{boxes: dets}` by name, `{boxes: 2}` by place
    index        the same for a format of one value
    box_format   `xyxy`, `yxyx` (as TensorFlow has corners), `xywh` (corner, size), `cxcywh` (centre,
                 size; default of yolo), `corners` (x and y of four), `xywhr` (cxcywh and radians, clockwise; with the
                 angle rows of yolo and end_to_end end)
    normalized   whether boxes are parts of the image, not model pixels
    activation   what makes scores of the values: `none`, `sigmoid` or `softmax` (detr: the last class is "no object",
                 each box has one class); classes `softmax` (the default: one class an image) or `sigmoid` (independent
                 scores: any number of classes)
    pool         vector: how a map (N, D, H, W) or tokens (N, L, D) become one: `mean`, or the `first` token
    background   the class that is none, the `first` or the `last`: it is left out, and has no label
    layout       yolo: `rows` (N, Q, 4 + C) or `columns` (N, 4 + C, Q); end_to_end: `rows`, unless `columns` is said
    order        end_to_end: what a row has, in its order: `[class, score, box]`; `skip` stands for a number of no use
    objectness   yolo: whether a score of any object follows the box; a class's score is then multiplied by it
    strides      yolo: pixels of a cell of each grid, where boxes are offsets in cells and logarithms of sizes (YOLOX)
    masks        yolo, end_to_end: whether rows end with coefficients of `prototypes` (N, P, H, W), a second value
    decode       a Python file beside the recipe with `decode(outputs, size_hw) -> {"boxes", "scores"}`
    """

    format: FormatName | None = None
    names: dict[str, Annotated[int, Field(ge=0)] | str] | None = None
    index: Annotated[int, Field(ge=0)] | None = None
    box_format: BoxForm | None = None
    normalized: bool | None = None
    activation: ScoreMaker | None = None
    background: Literal["first", "last"] | None = None
    pool: Literal["mean", "first"] | None = None
    layout: Literal["rows", "columns"] | None = None
    order: tuple[RowPart, ...] | None = None
    objectness: bool | None = None
    strides: Annotated[tuple[Annotated[int, Field(gt=0)], ...], Field(min_length=1)] | None = None
    masks: bool | None = None
    decode: str | None = None
    _folder: Path = PrivateAttr(default=Path())

    @model_validator(mode="after")
    def _keys_fit_format(self) -> "OutputFormat":
        if self.decode is not None and self.format is not None:
            raise ValueError("`decode` stands in the place of a `format`; give one of them")
        if self.decode is not None:
            self._check_keys("decode", DECODED)
        elif self.format is not None:
            self._check_keys(self.format, FORMS[self.format])
        return self

    def _check_keys(self, name: str, form: Form) -> None:
        """Raises ValueError."""
        given = {key for key, value in self.model_dump().items() if value is not None} - {"format"}
        allowed = form.keys | ({"names"} if len(self.values_of(form)) > 1 else set())
        if given - allowed:
            hint = "; it takes two values, so no `index`" if "index" in given - allowed else ""
            others = f"does not take {sorted(given - allowed)}; it takes {sorted(allowed)}"
            raise ValueError(f"output format {name!r} {others}{hint}")
        if form.needed - given:
            raise ValueError(f"output format {name!r} needs {sorted(form.needed - given)}")
        if self.activation is not None and self.activation not in form.activations:
            raise ValueError(f"activation of {name!r} is one of {form.activations}, got {self.activation!r}")
        if self.order is not None and sorted(part for part in self.order if part != "skip") != sorted(ROW):
            raise ValueError(f"`order` has `box`, `score` and `class` once each, got {list(self.order)}")
        if self.box_format == "xywhr" and self.normalized:
            raise ValueError("`box_format: xywhr` is in pixels: a turned box has no size in parts of width and height")
        if self.masks and self.is_oriented:
            raise ValueError("`masks` go with upright boxes; a turned box is its own outline")
        strays = set(self.names or ()) - set(self.values_of(form))
        if strays:
            raise ValueError(f"`names` of {name!r}: expected {sorted(self.values_of(form))}, got {sorted(strays)}")

    def values_of(self, form: Form) -> dict[str, str]:
        """Return the shapes of the values that a network gives, by name."""
        return {**form.values, **(PROTOTYPES if self.masks else {})}

    @property
    def is_oriented(self) -> bool:
        """Return whether boxes are turned."""
        return self.box_format in ("xywhr", "corners")

    def form_for(self, task: Task) -> tuple[str, Form]:
        """Return the name and form that is meant. Raises ConfigError for one of another task, or keys of another."""
        default = next(name for name, form in FORMS.items() if form.task == task)
        name = "decode" if self.decode is not None else self.format or default
        form = DECODED if self.decode is not None else FORMS[self.format or default]
        if form.task != task:
            expected = [name for name, form in FORMS.items() if form.task == task]
            raise ConfigError(f"output format {name!r} is not for {task}; expected one of {expected}")
        try:
            self._check_keys(name, form)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        return name, form

    def class_activation(self, task: Task) -> Activation | None:
        """Return what is to make scores of a classifier's logits; None for the usual one, and for other tasks."""
        return "sigmoid" if task == "classification" and self.activation == "sigmoid" else None

    @property
    def folder(self) -> Path:
        """Return where the path of its file begins."""
        return self._folder

    def located_in(self, folder: Path) -> "OutputFormat":
        """Return a copy whose file is looked up in `folder`."""
        located = self.model_copy()
        located._folder = folder
        return located
