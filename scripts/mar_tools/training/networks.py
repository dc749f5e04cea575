"""The network that a training begins with: of torchvision or timm, with as many outputs as there are classes."""

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

from mar_tools.models.recipes import Recipe, is_weights_file
from mar_tools.models.sources import load_source
from mar_tools.models.weights import PRETRAINED, RANDOM, read_state_dict
from vision_serving.config import PreprocessingConfig, ResizeConfig
from vision_serving.errors import ConfigError, foreign_code
from vision_serving.graphs.sources import NetworkSource, SourceName, build_network, load_state
from vision_serving.validation import parse_config

DEFAULT = "default"  # the published weights that the library itself takes
WITH_AUXILIARY = {"googlenet", "inception_v3"}  # of torchvision: outputs for training alone, in two other forms
LEAST_SHARE = 0.5  # of the tensors that weights have to bring, else they are another network's


@dataclass(frozen=True)
class Start:
    """A network to train, what rebuilds it, and how its pictures are prepared. taken: what it begins with, in words."""

    network: nn.Module
    source: NetworkSource
    preprocessing: PreprocessingConfig
    taken: str


def find_source(name: str) -> SourceName:
    """Return which library has a classifier of this name. Raises ConfigError where neither has."""
    from torchvision import models

    if name in models.list_models(module=models):
        return "torchvision"
    try:
        import timm
    except ModuleNotFoundError:
        raise ConfigError(f"--model {name}: torchvision has no such classifier, and timm is not installed") from None
    if not timm.is_model(name.partition(".")[0]):
        raise ConfigError(f"--model {name}: neither torchvision nor timm has a classifier of this name")
    return "timm"


def start_network(name: str, weights: str, classes: int, size: int | None) -> Start:
    """Build a network for so many classes, with the layers of weights that fit it.

    weights: `default`, a name of torchvision's, a file, or `random`. size: side of the square picture in pixels; None
    for the network's own. Raises ConfigError for weights of another network, and for a size that it does not take.
    """
    library = find_source(name)
    is_file = weights not in (DEFAULT, RANDOM) and is_weights_file(weights, Path())
    default = {"torchvision": "DEFAULT", "timm": PRETRAINED}[library]
    published = RANDOM if is_file else default if weights == DEFAULT else weights
    model = {"source": library, "name": name, "weights": published}
    recipe = parse_config(Recipe, {"name": "start", "task": "classification", "model": model}, f"--model {name}")
    origin = load_source(library)
    network, source = origin.load_network(recipe)
    preprocessing = resize_for(origin.find_preprocessing(recipe, network), size)
    arguments = {**source.arguments, "num_classes": classes, **size_arguments(library, network, size)}
    if name in WITH_AUXILIARY:
        arguments["aux_logits"] = False
    source = source.model_copy(update={"arguments": arguments})
    started, taken = build_network(source, Path()), "random weights"
    if weights != RANDOM:
        state = read_state_dict(Path(weights), None) if is_file else network.state_dict()
        taken = take_fitting(started, fit_positions(started, state), weights)
    check_size(started, preprocessing)
    return Start(started, source, preprocessing, taken)


def size_arguments(library: SourceName, network: nn.Module, size: int | None) -> dict[str, int]:
    """Return what builds a transformer for pictures of another size than its own: others take any. Raises ConfigError.

    Their positions are learned for one size, so it must be known when they are built.
    """
    patch = network.patch_size if isinstance(network, VisionTransformer) else find_timm_patch(network)
    if size is None or patch is None:
        return {}
    if size % patch:
        raise ConfigError(f"--size {size}: this network sees patches of {patch} x {patch}; give a multiple of {patch}")
    return {"image_size" if library == "torchvision" else "img_size": size}


def find_timm_patch(network: nn.Module) -> int | None:
    """Return the side of the patches of a transformer of timm that takes one size; None of other networks."""
    embedding = getattr(network, "patch_embed", None)
    if getattr(embedding, "img_size", None) is None or not getattr(embedding, "strict_img_size", False):
        return None
    return int(embedding.patch_size[0])  # type: ignore[union-attr, index]


def fit_positions(network: nn.Module, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return weights with the positions of a transformer for the size of its pictures, between those they have."""
    if isinstance(network, VisionTransformer) and "encoder.pos_embedding" in state:
        return dict(interpolate_embeddings(network.image_size, network.patch_size, OrderedDict(state)))
    own, given = getattr(network, "pos_embed", None), state.get("pos_embed")
    if own is None or given is None or own.shape == given.shape:
        return state
    from timm.layers import resample_abs_pos_embed

    grid = list(network.patch_embed.grid_size)  # type: ignore[union-attr, arg-type]
    prefix = int(getattr(network, "num_prefix_tokens", 1))
    return {**state, "pos_embed": resample_abs_pos_embed(given, grid, num_prefix_tokens=prefix)}


def take_fitting(network: nn.Module, state: dict[str, torch.Tensor], weights: str) -> str:
    """Give a network the tensors that fit it by name and shape: all but the last layer, where classes are others."""
    own = network.state_dict()
    fitting = {name: tensor for name, tensor in state.items() if name in own and tensor.shape == own[name].shape}
    if len(fitting) < LEAST_SHARE * len(own):
        raise ConfigError(
            f"--weights {weights}: {len(fitting)} of the network's {len(own)} tensors are there in its shapes; "
            "expected weights of this network, of any number of classes"
        )
    load_state(network, {**own, **fitting})
    return f"{len(fitting)} of {len(own)} tensors of {weights}"


def resize_for(preprocessing: PreprocessingConfig, size: int | None) -> PreprocessingConfig:
    """Return the same preparation for pictures of another size: what is cut off keeps its share."""
    fixed = preprocessing.fixed_hw
    if size is None or fixed is None:
        return preprocessing
    resize = preprocessing.resize
    scaled = resize.size
    if isinstance(scaled, int):
        scaled = round(scaled * size / fixed[0])
    else:
        scaled = (round(scaled[0] * size / fixed[0]), round(scaled[1] * size / fixed[1]))
    crop = None if preprocessing.crop is None else (size, size)
    return preprocessing.model_copy(
        update={"resize": ResizeConfig(**{**resize.model_dump(), "size": scaled}), "crop": crop}
    )


@torch.inference_mode()
def check_size(network: nn.Module, preprocessing: PreprocessingConfig) -> None:
    """Raises ConfigError where the network cannot take its pictures, as a transformer those of another size."""
    size = preprocessing.fixed_hw
    if size is None:
        raise ConfigError("this network takes pictures of any size, and a batch needs one: give --size")

    def explain(error: BaseException) -> ConfigError:
        return ConfigError(f"--size: the network does not take pictures of {size[0]} x {size[1]}: {error}")

    with foreign_code(explain):
        network(torch.zeros(1, 3, *size))
