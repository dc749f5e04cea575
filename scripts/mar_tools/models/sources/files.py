"""A model of which only a file is known (python, torchscript, onnx): the recipe states labels and preprocessing."""

from typing import Any

from torch import nn

from mar_tools.models.recipes import WEIGHT_FILES, Recipe
from mar_tools.models.weights import RANDOM, build_with_weights
from vision_serving.config import PreprocessingConfig
from vision_serving.errors import ConfigError
from vision_serving.graphs.construction import find_detector_graph
from vision_serving.graphs.sources import NetworkSource, build_network


def load_network(recipe: Recipe) -> tuple[nn.Module, NetworkSource]:
    weights, source = recipe.model.weights, recipe.network_source()
    if source.holds_weights:
        network = build_network(source, recipe.folder)
        # What an ONNX file takes beside its images.
        return network, source.model_copy(update={"inputs": getattr(network, "size_inputs", source.inputs)})
    if weights != RANDOM and recipe.weights_file is None:
        raise ConfigError(f"weights {weights!r}: expected a file ({', '.join(sorted(WEIGHT_FILES))}) or {RANDOM!r}")
    return build_with_weights(recipe)


def find_preprocessing(_: Recipe, network: nn.Module) -> PreprocessingConfig:
    """Find it. Only a torchvision detector that the file builds on knows its own."""
    if find_detector_graph(network) is None:
        raise ConfigError(
            "preprocessing: auto needs a torchvision, timm or huggingface model; "
            "state resize, mean and std in the recipe"
        )
    from mar_tools.models.sources.torchvision import preprocessing_of_detector

    return preprocessing_of_detector(network.transform)  # type: ignore[arg-type]


def find_labels(recipe: Recipe, _: nn.Module) -> list[str]:
    raise ConfigError(
        f"`labels` is missing, and {recipe.model.weights!r} brings none; name a file with one label a class"
    )


def default_options(network: nn.Module) -> dict[str, Any]:
    if find_detector_graph(network) is None:
        return {}
    from mar_tools.models.sources.torchvision import default_options as options_of_detector

    return options_of_detector(network)
