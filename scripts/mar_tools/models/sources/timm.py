"""timm's models: published weights or a file; labels and preprocessing from the data configuration of the model."""

import math
from typing import Any

import timm
import timm.data
from torch import nn

from mar_tools.models.recipes import WEIGHT_FILES, Recipe
from mar_tools.models.sources.pillow import pass_order
from mar_tools.models.weights import PRETRAINED, RANDOM, build_with_weights, check_own_shape
from vision_serving.config import PreprocessingConfig, ResizeConfig
from vision_serving.errors import ConfigError
from vision_serving.graphs.sources import NetworkSource, build_network

INTERPOLATIONS = {"nearest": "nearest-exact"}  # timm resizes with Pillow; torch's `nearest` takes other pixels


def load_network(recipe: Recipe) -> tuple[nn.Module, NetworkSource]:
    weights, source = recipe.model.weights, recipe.network_source()
    if weights == PRETRAINED:
        check_own_shape(source, weights)
        build_network(source, recipe.folder)  # it says what is wrong with a name, before anything is downloaded
        network = download(source).eval()
    elif weights != RANDOM and recipe.weights_file is None:
        expected = f"{PRETRAINED!r}, a file ({', '.join(sorted(WEIGHT_FILES))}) or {RANDOM!r}"
        raise ConfigError(f"weights {weights!r}: expected {expected}; a tag goes into the name, as in resnet50.a1_in1k")
    else:
        network, source = build_with_weights(recipe)
    return without_classes(network, source) if recipe.task == "embedding" else (network, source)


def without_classes(network: nn.Module, source: NetworkSource) -> tuple[nn.Module, NetworkSource]:
    """Return it as timm's feature extractor of the same name."""
    if getattr(network, "num_classes", None):
        network.reset_classifier(0)  # type: ignore[operator]
    return network, source.model_copy(update={"arguments": {**source.arguments, "num_classes": 0}})


def download(source: NetworkSource) -> nn.Module:
    """Return the network with timm's published weights, from the cache of the hub where they are there."""
    try:
        network: nn.Module = timm.create_model(str(source.name), pretrained=True, **source.arguments)
    except Exception as error:  # the hub's client raises its own errors, those of requests, and OSError
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise ConfigError(
            f"cannot get the published weights of timm model {source.name!r} ({reason}); fetch its model.safetensors "
            f"elsewhere and give --weights FILE, or --weights {RANDOM}"
        ) from error
    return network


def find_preprocessing(recipe: Recipe, network: nn.Module) -> PreprocessingConfig:
    """Find it as `timm.data.create_transform(**data_config, is_training=False)` does."""
    channels = recipe.model.arguments.get("in_chans", 3)
    if channels != 3:
        raise ConfigError(
            f"preprocessing: auto of a timm model is of 3 channels, and `in_chans` is {channels}; state "
            "`preprocessing`, with `channels: 1` and a mean and std of one number"
        )
    img_size = recipe.model.arguments.get("img_size")
    if img_size is None:
        return preprocessing_of_data_config(timm.data.resolve_model_data_config(network))
    height, width = img_size if isinstance(img_size, (list, tuple)) else (img_size, img_size)
    return preprocessing_of_data_config(
        timm.data.resolve_model_data_config(network, args={"input_size": (3, height, width)})
    )


def preprocessing_of_data_config(data_config: dict[str, Any]) -> PreprocessingConfig:
    """Return it from timm's own data_config, resolved. Raises ConfigError for pictures not RGB, and unknown modes."""
    channels, height, width = data_config["input_size"]
    if channels != 3:
        raise ConfigError(f"this timm model takes {channels} channels; only RGB pictures are served")
    crop_mode = data_config["crop_mode"] or "center"
    if crop_mode not in RESIZES:
        raise ConfigError(f"unknown crop_mode {crop_mode!r} of a timm model; expected one of {sorted(RESIZES)}")
    crop_pct = data_config["crop_pct"]
    scaled_hw = (math.floor(height / crop_pct), math.floor(width / crop_pct))
    interpolation = data_config["interpolation"]
    section = {
        "resize": RESIZES[crop_mode](scaled_hw, data_config["mean"]),
        "crop": (height, width),
        "interpolation": INTERPOLATIONS.get(interpolation, interpolation),
        "pass_order": pass_order(),
        **{key: data_config[key] for key in ("mean", "std")},
    }
    return PreprocessingConfig.model_validate(section)


def _center(scaled_hw: tuple[int, int], _: tuple[float, ...]) -> ResizeConfig:
    if scaled_hw[0] == scaled_hw[1]:
        return ResizeConfig(mode="shortest_edge", size=scaled_hw[0])
    return ResizeConfig(mode="cover", size=scaled_hw)


def _border(scaled_hw: tuple[int, int], mean: tuple[float, ...]) -> ResizeConfig:
    red, green, blue = (round(255 * value) for value in mean)
    return ResizeConfig(mode="letterbox", size=scaled_hw, pad_value=(red, green, blue))


RESIZES = {
    "center": _center,
    "squash": lambda scaled_hw, _: ResizeConfig(mode="exact", size=scaled_hw),
    "border": _border,
}


def find_labels(_: Recipe, network: nn.Module) -> list[str]:
    """Return the descriptions of ImageNet's classes, for the numbers of classes that its subsets have."""
    subset = timm.data.infer_imagenet_subset(network)
    if subset is None:
        count = getattr(network, "num_classes", "?")
        raise ConfigError(f"labels: auto knows ImageNet's classes, this model has {count}; give a file of labels")
    return list(timm.data.ImageNetInfo(subset).label_descriptions())


def default_options(_: nn.Module) -> dict[str, Any]:
    return {}
