"""torchvision's models: weights of its enums, labels and preprocessing from what it publishes with them."""

from typing import Any
from urllib.error import URLError

from torch import nn
from torchvision import models
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.transforms._presets import ImageClassification

from mar_tools.models.recipes import WEIGHT_FILES, Recipe
from mar_tools.models.sources.pillow import pass_order
from mar_tools.models.weights import RANDOM, build_with_weights, check_own_shape
from vision_serving.config import PreprocessingConfig, ResizeConfig
from vision_serving.errors import ConfigError
from vision_serving.graphs.sources import NetworkSource, remove_head


def load_network(recipe: Recipe) -> tuple[nn.Module, NetworkSource]:
    if recipe.model.weights != RANDOM and recipe.weights_file is None:
        network, source = load_published(recipe.network_source(), recipe.model.weights)
    else:
        network, source = build_with_weights(recipe)
    if recipe.task == "embedding":
        source = source.model_copy(update={"without_head": True})
        remove_head(network)
    return network, source


def load_published(source: NetworkSource, weights: str) -> tuple[nn.Module, NetworkSource]:
    """Load torchvision's published weights, downloaded into torch's cache."""
    entry = find_published(source, weights)
    check_own_shape(source, weights)
    try:
        network = models.get_model(source.name, weights=entry, **source.arguments)
    except ValueError as error:  # torchvision refuses arguments that do not fit the weights
        raise ConfigError(f"weights {weights!r} do not fit the arguments {source.arguments}: {error}") from error
    except (URLError, OSError, RuntimeError) as error:
        raise ConfigError(
            f"cannot download {entry.url} ({error}); fetch it elsewhere and give --weights FILE, or --weights random"
        ) from error
    return network.eval(), source.model_copy(update=_traits_of(network, source))


def find_published(source: NetworkSource, weights: str) -> Any:
    """Return the entry of the model's weights enum. Raises ConfigError that names the entries."""
    if source.name not in models.list_models():
        raise ConfigError(f"unknown torchvision model {source.name!r}; `torchvision.models.list_models()` names them")
    enum = models.get_model_weights(source.name)
    if weights not in enum.__members__:
        raise ConfigError(
            f"unknown weights {weights!r} for {source.name}; expected one of {sorted(enum.__members__)}, a file "
            f"({', '.join(sorted(WEIGHT_FILES))}) or {RANDOM!r}"
        )
    return enum[weights]


def _traits_of(network: nn.Module, source: NetworkSource) -> dict[str, Any]:
    """Return what a builder sets only because it was given published weights, so that a rebuilt network is the same."""
    arguments = dict(source.arguments)
    for name in ("transform_input", "aux_logits"):
        if hasattr(network, name):
            arguments[name] = getattr(network, name)
    frozen = {m.eps for m in network.modules() if type(m).__name__ == "FrozenBatchNorm2d"}
    return {"arguments": arguments, "norm_eps": frozen.pop() if len(frozen) == 1 else source.norm_eps}


def find_preprocessing(recipe: Recipe, network: nn.Module) -> PreprocessingConfig:
    """Return what torchvision states for the model."""
    transform = getattr(network, "transform", None)
    if isinstance(transform, GeneralizedRCNNTransform):
        return preprocessing_of_detector(transform)
    weights = recipe.model.weights
    published = models.get_model_weights(recipe.model.name)
    entry = published[weights] if weights in published.__members__ else find_fitting_entry(published, network)
    preset = entry.transforms()
    if not isinstance(preset, ImageClassification):
        raise ConfigError(f"{recipe.model.name} is no classifier or detector of torchvision; state `preprocessing`")
    return preprocessing_of_preset(preset)


def find_fitting_entry(published: Any, network: nn.Module) -> Any:
    """Return the default weights, or those for the size of images that a vision transformer was built for."""
    size = getattr(network, "image_size", None)
    fitting = [entry for entry in published if size is not None and entry.transforms().crop_size[0] == size]
    return published.DEFAULT if published.DEFAULT in fitting else next(iter(fitting), published.DEFAULT)


def preprocessing_of_preset(preset: ImageClassification) -> PreprocessingConfig:
    """Return torchvision's classification preset: shortest edge, centre crop."""
    return PreprocessingConfig(
        resize=ResizeConfig(mode="shortest_edge", size=preset.resize_size[0]),
        crop=(preset.crop_size[0], preset.crop_size[0]),
        interpolation=preset.interpolation.value,
        antialias=bool(preset.antialias),
        pass_order=pass_order(),
        mean=tuple(preset.mean),
        std=tuple(preset.std),
    )


def preprocessing_of_detector(transform: GeneralizedRCNNTransform) -> PreprocessingConfig:
    """Return torchvision's detection transform, which resizes without antialiasing."""
    if transform.fixed_size is not None:
        width, height = transform.fixed_size
        resize = ResizeConfig(mode="exact", size=(height, width))
    else:
        resize = ResizeConfig(mode="bounded_edges", size=transform.min_size[-1], max_size=transform.max_size)
    mean, std = tuple(transform.image_mean), tuple(transform.image_std)
    return PreprocessingConfig(resize=resize, antialias=False, mean=mean, std=std)


def find_labels(recipe: Recipe, _: nn.Module) -> list[str]:
    """Return the categories that torchvision publishes with the weights."""
    published = models.get_model_weights(recipe.model.name)
    if recipe.weights_file is not None:
        raise ConfigError(
            f"`labels` is missing, and {recipe.model.weights!r} brings none; name a file with one label a class"
        )
    entry = published.DEFAULT if recipe.model.weights == RANDOM else published[recipe.model.weights]
    return list(entry.meta["categories"])


def default_options(network: nn.Module) -> dict[str, Any]:
    """Return the NMS threshold and the number of boxes that a torchvision detector was built with."""
    owner = getattr(network, "roi_heads", network)
    if not hasattr(owner, "nms_thresh"):
        return {}
    return {"iou_threshold": owner.nms_thresh, "max_detections": owner.detections_per_img}
