"""Trained weights -> a network with its labels and preprocessing, all from the checkpoint's own metadata."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mar_tools.models.random_weights import settle_batch_norm, spread_class_scores
from mar_tools.models.recipes import Recipe
from mar_tools.models.sources import load_source
from mar_tools.models.weights import RANDOM as RANDOM
from vision_serving.config import PreprocessingConfig
from vision_serving.errors import ConfigError
from vision_serving.graphs.construction import build_graph
from vision_serving.graphs.sources import NetworkSource
from vision_serving.validation import MOST_BYTES, read_json

RANDOM_SEED = 0
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
    origin = load_source(recipe.model.source)
    network, source = origin.load_network(recipe)
    preprocessing = recipe.preprocessing
    if not isinstance(preprocessing, PreprocessingConfig):
        preprocessing = origin.find_preprocessing(recipe, network)
    if recipe.model.weights == RANDOM:
        spread_class_scores(network)
        settle_batch_norm(network, build_graph(network, recipe.task, preprocessing, source.output), preprocessing)
    candidates = getattr(network, "topk_candidates", DENSE_CANDIDATES)  # what a torchvision detector was built with
    return Checkpoint(
        network=network,
        source=source,
        labels=find_labels(recipe, network),
        preprocessing=preprocessing,
        options={**origin.default_options(network), **recipe.options},
        candidates_per_class=candidates if recipe.task == "detection" else None,
    )


def find_labels(recipe: Recipe, network: nn.Module) -> list[str]:
    """Return one a class; none of an embedding. Raises ConfigError."""
    if recipe.task == "embedding":
        return []
    if recipe.labels == "auto":
        return list(load_source(recipe.model.source).find_labels(recipe, network))
    return read_labels_file(recipe.path(recipe.labels))


def read_labels_file(path: Path) -> list[str]:
    """Return a JSON list of labels, or TorchServe's index_to_name.json: {"0": "cat"} or {"0": ["n02123045", "cat"]}."""
    content = read_json(path, most_bytes=MOST_BYTES)
    if isinstance(content, dict) and set(content) == {str(index) for index in range(len(content))}:
        content = [content[str(index)] for index in range(len(content))]
        content = [entry[-1] if isinstance(entry, list) and entry else entry for entry in content]
    if not isinstance(content, list) or not content or not all(isinstance(label, str) for label in content):
        raise ConfigError(f"{path}: expected a list of labels, or an object from '0' to 'C-1'")
    return content
