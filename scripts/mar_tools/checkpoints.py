"""Trained weights -> a network with its labels and preprocessing, all from the checkpoint's own metadata."""

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

import orjson
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision import models
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.transforms._presets import ImageClassification

from mar_tools.images import generate_images
from mar_tools.recipes import Recipe
from vision_serving.config import PreprocessingConfig, ResizeConfig
from vision_serving.errors import ConfigError
from vision_serving.graphs import build_graph
from vision_serving.graphs.sources import NetworkSource, build_network

RANDOM = "random"
WEIGHT_FILES = {".safetensors", ".pth", ".pt"}
RANDOM_SEED = 0


@dataclass(frozen=True)
class Checkpoint:
    """A network in eval mode, and what is needed to rebuild and use it."""

    network: nn.Module
    source: NetworkSource
    labels: list[str]
    preprocessing: PreprocessingConfig
    options: dict[str, Any]
    candidates_per_class: int | None


def load_checkpoint(recipe: Recipe) -> Checkpoint:
    """Raises ConfigError when the weights, labels or preprocessing cannot be had or do not fit."""
    torch.manual_seed(RANDOM_SEED)
    network, source = load_network(recipe)
    preprocessing = find_preprocessing(recipe, network)
    if recipe.model.weights == RANDOM:
        settle_batch_norm(network, recipe, preprocessing)
    return Checkpoint(
        network=network,
        source=source,
        labels=find_labels(recipe),
        preprocessing=preprocessing,
        options={**detector_options(network), **recipe.options},
        candidates_per_class=getattr(network, "topk_candidates", None) if type(network).__name__ == "SSD" else None,
    )


def load_network(recipe: Recipe) -> tuple[nn.Module, NetworkSource]:
    """The network with its weights, and the source that rebuilds it without them."""
    weights, source = recipe.model.weights, recipe.model.network_source()
    if weights == RANDOM:
        return build_network(source, recipe.folder), source
    if Path(weights).suffix in WEIGHT_FILES:
        network = build_network(source, recipe.folder)
        load_weights(network, recipe.path(weights))
        return network, source
    if source.source != "torchvision":
        raise ConfigError(f"weights {weights!r}: expected a file ({', '.join(sorted(WEIGHT_FILES))}) or {RANDOM!r}")
    return load_published(source, weights)


def load_weights(network: nn.Module, path: Path) -> None:
    """Load a state dict from a file into a network; every key and shape must fit."""
    try:
        state: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such weights file") from error
    except (SafetensorError, pickle.UnpicklingError, EOFError, OSError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ConfigError(f"{path}: not a readable state dict ({reason})") from error
    state = state.get("model", state.get("state_dict", state)) if isinstance(state, dict) else state
    problem = describe_mismatch(network.state_dict(), state)
    if problem:
        raise ConfigError(f"{path} does not fit the model: {problem}")
    network.load_state_dict(state)


def describe_mismatch(expected: dict[str, Tensor], found: object) -> str:
    """What does not fit between two state dicts, in a few words; empty when all does."""
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        return f"expected a state dict (names to tensors), got {type(found).__name__}"
    shapes = [
        f"{name} has shape {tuple(found[name].shape)}, expected {tuple(expected[name].shape)}"
        for name in expected
        if name in found and found[name].shape != expected[name].shape
    ]
    missing, unexpected = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    parts = shapes[:2]
    parts += [f"{len(missing)} missing keys, the first {missing[0]!r}"] if missing else []
    parts += [f"{len(unexpected)} unexpected keys, the first {unexpected[0]!r}"] if unexpected else []
    hint = "; `num_classes` goes under `model: arguments:`" if shapes else ""
    return "; ".join(parts) + hint


def load_published(source: NetworkSource, weights: str) -> tuple[nn.Module, NetworkSource]:
    """torchvision's published weights, downloaded into torch's cache."""
    entry = find_published(source, weights)
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
    """The entry of the model's weights enum. Raises ConfigError that names the entries."""
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
    """What a builder sets only because it was given published weights, so that a rebuilt network is the same."""
    arguments = dict(source.arguments)
    for name in ("transform_input", "aux_logits"):
        if hasattr(network, name):
            arguments[name] = getattr(network, name)
    frozen = {m.eps for m in network.modules() if type(m).__name__ == "FrozenBatchNorm2d"}
    return {"arguments": arguments, "norm_eps": frozen.pop() if len(frozen) == 1 else source.norm_eps}


def find_preprocessing(recipe: Recipe, network: nn.Module) -> PreprocessingConfig:
    """The recipe's own, else what torchvision states for the model."""
    if isinstance(recipe.preprocessing, PreprocessingConfig):
        return recipe.preprocessing
    transform = getattr(network, "transform", None)
    if isinstance(transform, GeneralizedRCNNTransform):
        return preprocessing_of_detector(transform)
    if recipe.model.source != "torchvision":
        raise ConfigError("preprocessing: auto needs a torchvision model; state resize, mean and std in the recipe")
    weights = recipe.model.weights
    published = models.get_model_weights(recipe.model.name)
    entry = published[weights] if weights in published.__members__ else published.DEFAULT
    preset = entry.transforms()
    if not isinstance(preset, ImageClassification):
        raise ConfigError(f"{recipe.model.name} is no classifier or detector of torchvision; state `preprocessing`")
    return preprocessing_of_preset(preset)


def preprocessing_of_preset(preset: ImageClassification) -> PreprocessingConfig:
    """torchvision's classification preset: shortest edge, centre crop."""
    return PreprocessingConfig(
        resize=ResizeConfig(mode="shortest_edge", size=preset.resize_size[0]),
        crop=(preset.crop_size[0], preset.crop_size[0]),
        interpolation=preset.interpolation.value,
        antialias=bool(preset.antialias),
        mean=tuple(preset.mean),
        std=tuple(preset.std),
    )


def preprocessing_of_detector(transform: GeneralizedRCNNTransform) -> PreprocessingConfig:
    """torchvision's detection transform, which resizes without antialiasing."""
    if transform.fixed_size is not None:
        width, height = transform.fixed_size
        resize = ResizeConfig(mode="exact", size=(height, width))
    else:
        resize = ResizeConfig(mode="bounded_edges", size=transform.min_size[-1], max_size=transform.max_size)
    mean, std = tuple(transform.image_mean), tuple(transform.image_std)
    return PreprocessingConfig(resize=resize, antialias=False, mean=mean, std=std)


def find_labels(recipe: Recipe) -> list[str]:
    """The recipe's file, else the categories that torchvision publishes with the weights."""
    if recipe.labels != "auto":
        return read_labels_file(recipe.path(recipe.labels))
    published = models.get_model_weights(recipe.model.name) if recipe.model.source == "torchvision" else None
    if published is None or Path(recipe.model.weights).suffix in WEIGHT_FILES:
        raise ConfigError(
            f"labels: auto needs published weights, not {recipe.model.weights!r}; give a JSON file with the labels"
        )
    entry = published.DEFAULT if recipe.model.weights == RANDOM else published[recipe.model.weights]
    return list(entry.meta["categories"])


def read_labels_file(path: Path) -> list[str]:
    """A JSON list of labels, or TorchServe's index_to_name.json: {"0": "cat"} or {"0": ["n02123045", "cat"]}."""
    try:
        content = orjson.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such labels file") from error
    except (OSError, orjson.JSONDecodeError) as error:
        raise ConfigError(f"{path}: not valid JSON ({error})") from error
    if isinstance(content, dict) and set(content) == {str(index) for index in range(len(content))}:
        content = [content[str(index)] for index in range(len(content))]
        content = [entry[-1] if isinstance(entry, list) and entry else entry for entry in content]
    if not isinstance(content, list) or not content or not all(isinstance(label, str) for label in content):
        raise ConfigError(f"{path}: expected a list of labels, or an object from '0' to 'C-1'")
    return content


def detector_options(network: nn.Module) -> dict[str, Any]:
    """The NMS threshold and the number of boxes that a torchvision detector was built with."""
    owner = getattr(network, "roi_heads", network)
    if not hasattr(owner, "nms_thresh"):
        return {}
    return {"iou_threshold": owner.nms_thresh, "max_detections": owner.detections_per_img}


def settle_batch_norm(network: nn.Module, recipe: Recipe, preprocessing: PreprocessingConfig) -> None:
    """Give a random network batch-norm statistics of real activations: without them they explode or vanish."""
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    graph = build_graph(network, recipe.task, preprocessing)
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average
        norm.train()
    with torch.inference_mode():
        graph(generate_images(count=4, preprocessing=preprocessing))
    network.eval().requires_grad_(True)
