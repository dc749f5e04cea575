"""Trained weights -> a network with its labels and preprocessing, all from the checkpoint's own metadata."""

import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

import orjson
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision import models
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.transforms._presets import ImageClassification

from mar_tools.images import load_pixels
from mar_tools.recipes import WEIGHT_FILES, Recipe
from vision_serving.config import PreprocessingConfig, ResizeConfig
from vision_serving.errors import ConfigError
from vision_serving.graphs import build_graph
from vision_serving.graphs.sources import NetworkSource, build_network

RANDOM = "random"
STATE_KEYS = ("model", "state_dict", "model_state_dict")
PARALLEL_PREFIX = "module."  # of torch.nn.DataParallel
RANDOM_SEED = 0
CLASS_LAYERS = re.compile(r"(cls_logits|cls_score|classification_head\.module_list\.\d+(\.1)?)$")
CLASS_SPREAD = 8.0
DENSE_CANDIDATES = 1000  # per class, for detectors that state none; more are never boxes of one picture


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
        spread_class_scores(network)
        settle_batch_norm(network, recipe, preprocessing)
    return Checkpoint(
        network=network,
        source=source,
        labels=find_labels(recipe),
        preprocessing=preprocessing,
        options={**detector_options(network), **recipe.options},
        candidates_per_class=candidates_per_class(recipe, network),
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
    state = read_state_dict(path)
    problem = describe_mismatch(network.state_dict(), state)
    if problem:
        raise ConfigError(f"{path} does not fit the model: {problem}")
    network.load_state_dict(state)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """From a .safetensors or .pth file, also under the keys and prefixes that training scripts put around it."""
    if not path.is_file():
        raise ConfigError(f"{path}: no such weights file")
    try:
        state: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ConfigError(
            f"{path}: it holds more than tensors, such as a whole model; save model.state_dict() instead"
        ) from error
    except Exception as error:  # a damaged file makes the unpickler raise anything
        raise ConfigError(f"{path}: damaged, or not a weights file ({type(error).__name__})") from error
    for key in STATE_KEYS:
        state = state.get(key, state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        found = f"a dict with {sorted(map(str, state))[:5]}" if isinstance(state, dict) else type(state).__name__
        raise ConfigError(f"{path}: expected a state dict (names to tensors), got {found}")
    return {name.removeprefix(PARALLEL_PREFIX): values for name, values in state.items()}


def describe_mismatch(expected: dict[str, Tensor], found: dict[str, Tensor]) -> str:
    """What does not fit between two state dicts, in a few words; empty when all does."""
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


def spread_class_scores(network: nn.Module) -> None:
    """A random network scores everything alike, and which is best is chance: let its class layers tell things apart.

    torchvision gives a detector's class layers small weights, and the head of a ViT zeros.
    """
    for name, layer in network.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            if not layer.weight.any():
                nn.init.normal_(layer.weight, std=layer.weight[0].numel() ** -0.5)
            elif CLASS_LAYERS.search(name):
                layer.weight.data.mul_(CLASS_SPREAD)


def candidates_per_class(recipe: Recipe, network: nn.Module) -> int | None:
    """How many boxes of a class reach NMS: what a torchvision detector was built with; nothing for a classifier."""
    return getattr(network, "topk_candidates", DENSE_CANDIDATES) if recipe.task == "detection" else None


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
        graph(load_pixels(4, preprocessing))
    network.eval().requires_grad_(True)
