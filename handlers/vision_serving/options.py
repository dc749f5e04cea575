"""What a request may choose."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from vision_serving.errors import InvalidOptionError
from vision_serving.validation import StrictModel, describe_problems

Task = Literal["classification", "detection", "embedding"]
Activation = Literal["softmax", "sigmoid"]
Method = Literal["occlusion", "integrated_gradients", "saliency"]
Instances = Literal["masks", "keypoints", "corners"]
Threshold = Annotated[float, Field(ge=0, le=1)]
MAX_CLASSES = 1000
ClassFilter = Annotated[tuple[int | str, ...], Field(max_length=MAX_CLASSES)]
ClassThresholds = Annotated[dict[int | str, Threshold], Field(max_length=MAX_CLASSES)]
Nms = Literal["class_wise", "class_agnostic", "soft", "none"]
BoxFormat = Literal["xyxy", "xywh", "xyxyn", "xywhn"]

MIN_TILE, MAX_TILE = 32, 16_384  # pixels


class ClassificationOptions(StrictModel):
    """What a classification request may choose."""

    top_k: Annotated[int, Field(ge=1, le=1000)] = 5


class EmbeddingOptions(StrictModel):
    """What a request for an embedding may choose. normalize: to a length of 1."""

    normalize: bool = False


def _split(value: str) -> list[str]:
    """Raises ValueError for more parts than can be meant, before they are made."""
    if value.count(",") > MAX_CLASSES:
        raise ValueError(f"expected at most {MAX_CLASSES} classes with commas between")
    return [part.strip() for part in value.split(",")]


def _split_commas(value: object) -> object:
    """Split `person, dog` into ("person", "dog"); an empty text takes a filter away."""
    if not isinstance(value, str):
        return value
    return tuple(filter(None, _split(value))) or None


def _split_pairs(value: object) -> object:
    """Split `person:0.3, dog:0.6` into {"person": "0.3", "dog": "0.6"}."""
    if not isinstance(value, str):
        return value
    thresholds: dict[str, str] = {}
    for pair in filter(None, _split(value)):
        name, separator, threshold = (part.strip() for part in pair.rpartition(":"))
        if not separator or name in thresholds:
            problem = f"{name[:60]!r} twice" if separator else repr(pair[:60])
            raise ValueError(f"expected `label:threshold` with commas between, each label once, got {problem}")
        thresholds[name] = threshold
    return thresholds


def _check_tile_size(value: int) -> int:
    if value != 0 and not MIN_TILE <= value <= MAX_TILE:
        raise ValueError(f"expected {MIN_TILE} to {MAX_TILE} pixels, or 0 for no tiles, got {value}")
    return value


class MultiLabelOptions(ClassificationOptions):
    """What a request to a classifier with independent scores may choose, too: the classes above their threshold."""

    top_k: Annotated[int, Field(ge=1, le=1000)] = 100
    score_threshold: Threshold = 0.5
    class_thresholds: Annotated[ClassThresholds, BeforeValidator(_split_pairs)] = Field(default={})


class DetectionOptions(StrictModel):
    """What a detection request may choose; docs/use/detection.md tells what each does.

    class_filter, class_thresholds   name classes by label or class id
    tile_size                        pixels of the upright image, 0 for no tiles; tile_overlap: share of a tile
    """

    score_threshold: Threshold = 0.5
    class_thresholds: Annotated[ClassThresholds, BeforeValidator(_split_pairs)] = Field(default={})
    class_filter: Annotated[ClassFilter | None, BeforeValidator(_split_commas)] = None
    nms: Nms = "class_wise"
    iou_threshold: Annotated[float, Field(gt=0, le=1)] = 0.5
    max_detections: Annotated[int, Field(ge=1, le=1000)] = 100
    box_format: BoxFormat = "xyxy"
    tile_size: Annotated[int, AfterValidator(_check_tile_size)] = 0
    tile_overlap: Annotated[float, Field(ge=0, le=0.5)] = 0.2


class MaskOptions(DetectionOptions):
    """What a request of a detector with masks may choose, too."""

    mask_format: Literal["rle", "polygons", "none"] = "rle"


class ExplanationOptions(StrictModel):
    """What a request for an explanation may choose.

    target_class   label or class id of what is explained; the best class where there is none
    cells          occlusion: into how many cells each side is divided, for (cells + 1)^2 inferences
    steps          integrated gradients: points between the baseline and the image, an inference and a gradient each
    """

    method: Method = "occlusion"
    target_class: int | str | None = None
    cells: Annotated[int, Field(ge=2, le=16)] = 8
    steps: Annotated[int, Field(ge=8, le=128)] = 32


PredictionOptions = ClassificationOptions | DetectionOptions | EmbeddingOptions
Options = PredictionOptions | ExplanationOptions
OPTIONS: dict[Task, type[PredictionOptions]] = {
    "classification": ClassificationOptions,
    "detection": DetectionOptions,
    "embedding": EmbeddingOptions,
}
# What a detector may give beyond boxes; a recipe, which does not know yet, may state options of any of them.
INSTANCE_OPTIONS: dict[Instances, type[DetectionOptions]] = {
    "masks": MaskOptions,
    "keypoints": DetectionOptions,
    "corners": DetectionOptions,
}
WIDEST_OPTIONS: dict[Task, type[PredictionOptions]] = {
    "classification": MultiLabelOptions,
    "detection": MaskOptions,
    "embedding": EmbeddingOptions,
}


OptionsModel = TypeVar("OptionsModel", bound=StrictModel)


def parse_options(model: type[OptionsModel], values: Mapping[str, Any], defaults: Mapping[str, Any]) -> OptionsModel:
    """Return the defaults with a request's values over them. Raises InvalidOptionError."""
    unknown = sorted(set(values) - set(model.model_fields))
    if unknown:
        allowed = sorted(model.model_fields)
        raise InvalidOptionError(f"unknown option {unknown[0][:60]!r}; expected one of {allowed}")
    try:
        return model.model_validate({**defaults, **values})
    except ValidationError as error:
        raise InvalidOptionError(describe_problems(error, model)) from error


def find_options(
    task: Task, instances: Instances | None, activation: Activation | None = None
) -> type[PredictionOptions]:
    """Return what a request to a model may choose."""
    if task == "classification" and activation == "sigmoid":
        return MultiLabelOptions
    return OPTIONS[task] if instances is None else INSTANCE_OPTIONS[instances]


def check_options(model: type[PredictionOptions], options: dict[str, Any]) -> None:
    """Raises ValueError when they are not options of that model."""
    try:
        model.model_validate(options)
    except ValidationError as error:
        raise ValueError(f"options: {describe_problems(error, model)}") from error
