"""The settings of a transformers image processor -> our preprocessing."""

from typing import Any

import PIL.Image
from pydantic import ValidationError

from mar_tools.models.sources.pillow import pass_order
from vision_serving.config import PreprocessingConfig, ResizeConfig
from vision_serving.errors import ConfigError
from vision_serving.validation import describe_problems

STATE_IT = "state `preprocessing` in the recipe"
INTERPOLATIONS = {"nearest": "nearest-exact"}
CONVNEXT_WARPS_FROM = 384  # pixels: ConvNextImageProcessor crops below, and squashes from here on
YOLOS_MULTIPLE = 16
LEVIT_ENLARGES = 256 / 224


def preprocessing_of(processor: Any) -> PreprocessingConfig:
    """Raises ConfigError for settings that have no counterpart here."""
    name = type(processor).__name__
    kind = name.removesuffix("Fast").removesuffix("Pil")
    settings = processor.to_dict()
    if not settings.get("do_resize") or not settings.get("size"):
        raise ConfigError(f"{kind} has do_resize false or no size, so pictures have no bounded size; {STATE_IT}")
    resize, crop = RESIZES.get(kind, _generic_resize)(kind, settings)
    if settings.get("do_center_crop"):
        crop = _height_width(settings["crop_size"], kind, "crop_size")
    mean, std = _normalisation(settings)
    if settings.get("do_pad") and settings.get("pad_size"):
        resize = _padded(resize, mean, kind, settings)
    interpolation = _interpolation(settings)
    order = pass_order() if name.endswith("Pil") else "horizontal_first"
    colours = {"color_order": "bgr" if settings.get("do_flip_channel_order") else "rgb", "mean": mean, "std": std}
    form = {"resize": resize, "crop": crop, "crop_offset": "floor", "interpolation": interpolation, "pass_order": order}
    return PreprocessingConfig.model_validate({**form, **colours})


Resized = tuple[ResizeConfig, tuple[int, int] | None]


def _generic_resize(kind: str, settings: dict[str, Any]) -> Resized:
    size = {key: value for key, value in dict(settings["size"]).items() if value}
    if size.keys() == {"shortest_edge"}:
        if not settings.get("do_center_crop"):
            raise ConfigError(f"{kind} has size {size} and no crop, so pictures have no bounded size; {STATE_IT}")
        return ResizeConfig(mode="shortest_edge", size=size["shortest_edge"]), None
    if size.keys() == {"shortest_edge", "longest_edge"}:
        edges = {"size": size["shortest_edge"], "max_size": size["longest_edge"]}
        return ResizeConfig(mode="shortest_edge", **edges), None
    if size.keys() == {"max_height", "max_width"} and size["max_height"] == size["max_width"]:
        return ResizeConfig(mode="bounded_edges", size=size["max_height"], max_size=size["max_height"]), None
    return ResizeConfig(mode="exact", size=_height_width(size, kind, "size")), None


def _convnext_resize(kind: str, settings: dict[str, Any]) -> Resized:
    side = dict(settings["size"]).get("shortest_edge")
    if not side:
        raise ConfigError(f"{kind} has size {settings['size']}; expected a shortest_edge; {STATE_IT}")
    if side >= CONVNEXT_WARPS_FROM:
        return ResizeConfig(mode="exact", size=(side, side)), None
    return ResizeConfig(mode="shortest_edge", size=int(side / settings["crop_pct"])), (side, side)


def _yolos_resize(kind: str, settings: dict[str, Any]) -> Resized:
    resize, crop = _generic_resize(kind, settings)
    multiple = YOLOS_MULTIPLE if resize.mode == "shortest_edge" else None
    return resize.model_copy(update={"multiple_of": multiple}), crop


def _levit_resize(kind: str, settings: dict[str, Any]) -> Resized:
    resize, crop = _generic_resize(kind, settings)
    if resize.mode == "shortest_edge" and isinstance(resize.size, int):
        resize = resize.model_copy(update={"size": int(LEVIT_ENLARGES * resize.size)})
    return resize, crop


def _poolformer_resize(kind: str, settings: dict[str, Any]) -> Resized:
    side = dict(settings["size"]).get("shortest_edge")
    if not side or not settings.get("crop_pct"):
        return _generic_resize(kind, settings)
    return ResizeConfig(mode="shortest_edge", size=int(side / settings["crop_pct"])), None


RESIZES = {
    "ConvNextImageProcessor": _convnext_resize,
    "LevitImageProcessor": _levit_resize,
    "PoolFormerImageProcessor": _poolformer_resize,
    "YolosImageProcessor": _yolos_resize,
}


def _padded(resize: ResizeConfig, mean: tuple[float, ...], kind: str, settings: dict[str, Any]) -> ResizeConfig:
    """Return the border's colour: 0 after normalising, so the mean, to the next of 255 levels."""
    pad_size = _height_width(settings["pad_size"], kind, "pad_size")
    if resize.mode == "exact" and resize.size == pad_size:
        return resize
    border = {"pad_size": pad_size, "pad_place": "top_left", "pad_value": tuple(round(255 * value) for value in mean)}
    try:
        return ResizeConfig.model_validate({**resize.model_dump(), **border})
    except ValidationError as error:
        raise ConfigError(f"{kind} pads: {describe_problems(error, ResizeConfig)}; {STATE_IT}") from error


def _height_width(size: Any, kind: str, name: str) -> tuple[int, int]:
    given = {key: value for key, value in dict(size).items() if value}
    if given.keys() != {"height", "width"}:
        raise ConfigError(f"{kind} has {name} {given}; expected height and width; {STATE_IT}")
    return given["height"], given["width"]


def _interpolation(settings: dict[str, Any]) -> str:
    resample = settings.get("resample")
    name = "bilinear" if resample is None else PIL.Image.Resampling(int(resample)).name.lower()
    return INTERPOLATIONS.get(name, name)


def _normalisation(settings: dict[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and std for pixels scaled to [0, 1], whatever the processor scales them to."""
    factor = settings["rescale_factor"] if settings.get("do_rescale") else 1.0
    normalises = bool(settings.get("do_normalize"))
    means = _per_channel(settings["image_mean"]) if normalises else (0.0,) * 3
    stds = _per_channel(settings["image_std"]) if normalises else (1.0,) * 3
    unit = 255 * factor  # 1 for the usual factor, within rounding
    return tuple(round(mean / unit, 9) for mean in means), tuple(round(std / unit, 9) for std in stds)


def _per_channel(values: Any) -> tuple[float, ...]:
    return tuple(values) if isinstance(values, (list, tuple)) else (float(values),) * 3
