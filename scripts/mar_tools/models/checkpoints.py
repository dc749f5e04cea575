"""Trained weights -> a network with its labels and preprocessing, all from the checkpoint's own metadata."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from mar_tools.models.file_facts import fit_file
from mar_tools.models.label_files import check_labels, read_labels_file
from mar_tools.models.random_weights import settle_batch_norm, spread_class_scores
from mar_tools.models.recipes import Recipe
from mar_tools.models.sources import load_source
from mar_tools.models.weight_files import look_into
from mar_tools.models.weights import RANDOM as RANDOM
from mar_tools.models.weights import check_holds_weights
from vision_serving.config import PreprocessingConfig
from vision_serving.errors import ConfigError
from vision_serving.graphs.construction import build_graph
from vision_serving.graphs.sources import NetworkSource

RANDOM_SEED = 0
DENSE_CANDIDATES = 1000  # per class, for detectors that state none; more are never boxes of one picture


@dataclass(frozen=True)
class Checkpoint:
    """A network in eval mode, and what is needed to rebuild and use it.

    assumed: what neither the recipe nor the weights say, in sentences. published: the preprocessing that the source
    itself states for the network, where it does. folder: where the source's files lie.
    """

    network: nn.Module
    source: NetworkSource
    labels: list[str]
    preprocessing: PreprocessingConfig
    options: dict[str, Any]
    candidates_per_class: int | None
    folder: Path
    assumed: tuple[str, ...] = ()
    published: PreprocessingConfig | None = None


def load_checkpoint(recipe: Recipe) -> Checkpoint:
    """Raises ConfigError when the weights, labels or preprocessing cannot be had or do not fit."""
    check_files(recipe)
    torch.manual_seed(RANDOM_SEED)
    origin = load_source(recipe.model.source)
    network, source = origin.load_network(recipe)
    preprocessing = recipe.preprocessing
    if not isinstance(preprocessing, PreprocessingConfig):
        preprocessing = origin.find_preprocessing(recipe, network)
    if source.holds_weights:
        network, source, preprocessing = fit_file(network, source, preprocessing)
    if recipe.model.weights == RANDOM:
        spread_class_scores(network)
        graph = build_graph(network, recipe.task, preprocessing, source.output, source.inputs)
        settle_batch_norm(network, graph, preprocessing)
    candidates = getattr(network, "topk_candidates", DENSE_CANDIDATES)  # what a torchvision detector was built with
    return Checkpoint(
        network=network,
        source=source,
        labels=find_labels(recipe, network),
        preprocessing=preprocessing,
        options={**origin.default_options(network), **recipe.options},
        candidates_per_class=candidates if recipe.task == "detection" else None,
        folder=recipe.folder,
        assumed=describe_assumed_preprocessing(recipe, preprocessing),
        published=find_published_preprocessing(recipe, network),
    )


def find_labels(recipe: Recipe, network: nn.Module) -> list[str]:
    """Return one a class; none of an embedding. Raises ConfigError."""
    if recipe.task == "embedding":
        return []
    if recipe.labels != "auto":
        return read_labels_file(recipe.path(recipe.labels))
    labels = list(load_source(recipe.model.source).find_labels(recipe, network))
    check_labels(labels, "labels: auto")
    return labels


def check_files(recipe: Recipe) -> None:
    """Read the files of weights and labels, in the first second. Raises ConfigError for what they say against it.

    And for a path at which nothing is, with its key.
    """
    truths = {f"verification.{key}": getattr(recipe.verification, key) for key in ("images", "labels", "annotations")}
    named = {"labels": recipe.labels, "calibration.images": recipe.calibration.images, **truths}
    for key, given in named.items():
        if given not in (None, "auto", "folders") and not recipe.path(given).exists():
            raise ConfigError(f"{key}: {recipe.path(given)}: no such file or folder")
    if recipe.labels != "auto":
        read_labels_file(recipe.path(recipe.labels))
    if recipe.weights_file is not None:
        check_holds_weights(look_into(recipe.weights_file))
    if recipe.model.source == "onnx" and recipe.path(str(recipe.model.file)).is_file():
        from mar_tools.models.onnx_weights import find_external_weights  # needs a package that other models do not

        find_external_weights(recipe.path(str(recipe.model.file)))


def describe_assumed_preprocessing(recipe: Recipe, preprocessing: PreprocessingConfig) -> tuple[str, ...]:
    """Say that the preprocessing of published weights is taken for those of a file, which tells nothing of its own."""
    file = recipe.weights_file
    if recipe.preprocessing != "auto" or file is None or not states_preprocessing(recipe):
        return ()
    return (
        f"preprocessing: {file.name} does not say with what it was trained, so that of the "
        f"published {recipe.model.name} is assumed. If it was another, state it in the recipe, which now means "
        f"`preprocessing: {write_preprocessing(preprocessing)}`",
    )


def find_published_preprocessing(recipe: Recipe, network: nn.Module) -> PreprocessingConfig | None:
    """Return what the library states for its own weights of this network, None where it states nothing."""
    if not states_preprocessing(recipe):
        return None
    try:
        found: PreprocessingConfig = load_source(recipe.model.source).find_preprocessing(recipe, network)
    except (ConfigError, ValueError, KeyError):  # such as a network of one's own number of channels
        return None
    return found


def states_preprocessing(recipe: Recipe) -> bool:
    """Return whether the preprocessing is that of published weights, and no part of the network."""
    return recipe.model.source == "timm" or (recipe.model.source == "torchvision" and recipe.task == "classification")


def write_preprocessing(preprocessing: PreprocessingConfig) -> str:
    """Return what a recipe has to say for it, in one line of YAML."""
    values = preprocessing_values(preprocessing)
    return yaml.safe_dump(values, default_flow_style=True, sort_keys=False, width=10_000).strip()


def preprocessing_values(preprocessing: PreprocessingConfig) -> dict[str, Any]:
    """Return what a recipe has to say for it: what is not the default, and mean and std in any case."""
    stated = preprocessing.model_dump(mode="json", exclude_defaults=True)
    return {**stated, "mean": list(preprocessing.mean), "std": list(preprocessing.std)}
