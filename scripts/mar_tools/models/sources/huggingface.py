"""transformers' image classifiers and detectors, from a folder or the hub: configuration, weights, image processor."""

import json
from typing import Any, cast

import PIL.Image
import torch
import transformers
from torch import nn

from mar_tools.models.example_pixels import load_photographs
from mar_tools.models.recipes import TRUST, WEIGHT_FILES, Recipe
from mar_tools.models.sources.image_processors import preprocessing_of
from mar_tools.models.weights import PRETRAINED, RANDOM, read_state_dict
from vision_serving.config import PreprocessingConfig
from vision_serving.errors import ConfigError
from vision_serving.graphs.outputs import OutputFormat
from vision_serving.graphs.pixels import Normalize
from vision_serving.graphs.sources import NetworkSource, build_network, check_library_output
from vision_serving.options import Task
from vision_serving.pictures.resizing import preprocess_images

AUTO_CLASSES: dict[Task, str] = {
    "classification": "AutoModelForImageClassification",
    "detection": "AutoModelForObjectDetection",
    "embedding": "AutoModel",
}
PROJECTION = "VisionModelWithProjection"  # the end of the names of such classes
MULTI_LABEL = "multi_label_classification"  # `problem_type` of a configuration
# How the image processor of a detector makes scores: by model type.
SIGMOIDS = (
    "conditional_detr", "d_fine", "dab-detr", "deformable_detr", "lw_detr", "rf_detr", "rt_detr", "rt_detr_v2",
)  # fmt: skip
SOFTMAXES = ("detr", "table-transformer", "yolos")
ACTIVATIONS = dict.fromkeys(SOFTMAXES, "softmax") | dict.fromkeys(SIGMOIDS, "sigmoid")
# Types whose networks look at the mask of the padding, and which need it: none of it reaches an archive.
MASKED = {"detr", "table-transformer", "conditional_detr", "dab-detr", "deformable_detr", "lw_detr", "rf_detr"}
BEST_OF_ALL = {"conditional_detr", "dab-detr", "deformable_detr", "lw_detr", "rf_detr"}
BEST_OF_ALL_COUNT = 100  # `top_k` of their post_process_object_detection
MOST_DETECTIONS = 1000  # what the option `max_detections` allows
# In units of the normalised image; resizing alone differs by a level or two of 255 in a few pixels.
LARGEST_MEAN_DIFFERENCE = 0.02


def load_network(recipe: Recipe) -> tuple[nn.Module, NetworkSource]:
    weights, asked = recipe.model.weights, recipe.network_source()
    try:
        check_library_output("huggingface", asked.output)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    config = read_model_config(recipe)
    if recipe.task == "embedding":
        config = take_image_half(config)
    source = asked.model_copy(
        update={
            "class_name": asked.class_name or find_class(config, recipe.task),
            "arguments": json.loads(config.to_json_string(use_diff=False)),
            "output": output_of(config, recipe.task, asked.output),
        }
    )
    if weights == RANDOM:
        return build_network(source, recipe.folder), source
    if weights == PRETRAINED:
        auto_class = getattr(transformers, str(source.class_name))
        return load_pretrained(recipe, auto_class, config, find_location(recipe)), source
    if recipe.weights_file is None:
        expected = f"{PRETRAINED!r}, a file ({', '.join(sorted(WEIGHT_FILES))}) or {RANDOM!r}"
        raise ConfigError(f"weights {weights!r}: expected {expected}")
    model_class = type(build_network(source, recipe.folder))  # an Auto class wants a folder
    state = read_state_dict(recipe.weights_file, recipe.model.weights_key)
    return load_pretrained(recipe, model_class, config, None, state_dict=state), source


def take_image_half(config: transformers.PretrainedConfig) -> transformers.PretrainedConfig:
    """Return the configuration of the image encoder in a model of images and texts; others as they are."""
    half = getattr(config, "vision_config", None)
    stem = next(iter(config.architectures or ()), "").removesuffix("Model")
    own = next((stem + end for end in (PROJECTION, "VisionModel") if hasattr(transformers, stem + end)), None)
    if half is None or own is None:
        return config
    half.architectures = [own]
    if hasattr(config, "projection_dim"):
        half.projection_dim = config.projection_dim
    return cast(transformers.PretrainedConfig, half)


def find_class(config: transformers.PretrainedConfig, task: Task) -> str:
    """Return the class to load with: of an image encoder with a projection that one, which no Auto class has."""
    published = next(iter(config.architectures or ()), "")
    return published if task == "embedding" and published.endswith(PROJECTION) else AUTO_CLASSES[task]


def find_location(recipe: Recipe) -> str:
    """Return a folder beside the recipe, else an id of the hub."""
    folder = recipe.path(str(recipe.model.name))
    return str(folder) if folder.is_dir() else str(recipe.model.name)


def read_model_config(recipe: Recipe) -> transformers.PretrainedConfig:
    """Read `config.json`, with the recipe's `arguments` in the place of its entries. Raises ConfigError for others."""
    location = find_location(recipe)
    trusted = {TRUST: recipe.model.trusts_remote_code}  # never None: transformers would ask, in a hidden terminal
    arguments = {**recipe.model.arguments, **trusted, "return_unused_kwargs": True}
    try:
        config: transformers.PretrainedConfig
        config, unknown = transformers.AutoConfig.from_pretrained(location, **arguments)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(_cannot_read(recipe, "config.json", error)) from error
    if unknown:
        raise ConfigError(
            f"config.json of huggingface model {recipe.model.name!r} has no {sorted(unknown)} (`arguments`)"
        )
    return config


def load_pretrained(
    recipe: Recipe, model_class: Any, config: transformers.PretrainedConfig, location: str | None, **options: Any
) -> nn.Module:
    """Return the network in fp32 with the weights of a folder, the hub or a `state_dict`; each must be there and fit.

    transformers' own loader knows under which names older releases saved a weight.
    """
    options.update(config=config, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True)
    options[TRUST] = recipe.model.trusts_remote_code
    try:
        network, loaded = model_class.from_pretrained(location, **options)
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise ConfigError(_cannot_read(recipe, "weights", error)) from error
    # transformers gives what is missing random values, and only warns.
    problems = sorted([*loaded["missing_keys"], *(str(entry[0]) for entry in loaded["mismatched_keys"])])
    if problems:
        raise ConfigError(
            f"the weights of {recipe.model.name!r} do not fit {type(network).__name__}: {len(problems)} are missing or "
            f"of another shape, the first {problems[0]!r}"
        )
    trained: nn.Module = network.eval()
    return trained


def _cannot_read(recipe: Recipe, what: str, error: Exception) -> str:
    if TRUST in str(error):
        return (
            f"{what} of huggingface model {recipe.model.name!r} needs Python code that comes with it; where you trust "
            f"that code, say `arguments: {{{TRUST}: true}}` in the recipe, and give --trust-remote-code"
        )
    reason = " ".join(str(error).split())[:200]
    return (
        f"cannot read {what} of huggingface model {recipe.model.name!r}: it is no folder beside the recipe that holds "
        f"them, and the hub did not give them ({type(error).__name__}: {reason}); download the model elsewhere "
        f"(config.json, preprocessor_config.json, model.safetensors) and name its folder"
    )


def output_of(config: transformers.PretrainedConfig, task: Task, asked: OutputFormat) -> OutputFormat:
    """Return what the configuration tells, and what the recipe adds.

    Raises ConfigError for a detector whose scores are not known here.
    """
    if task == "embedding":
        return asked
    if task == "classification":
        is_multi_label = getattr(config, "problem_type", None) == MULTI_LABEL
        return asked.model_copy(update={"activation": "sigmoid"}) if is_multi_label and not asked.activation else asked
    if asked.decode is not None:
        return asked
    if asked.model_dump(exclude_none=True):
        raise ConfigError(
            "source 'huggingface' does not take 'output' of a detector, but for `decode`: config.json tells it"
        )
    if config.model_type not in ACTIVATIONS:
        raise ConfigError(
            f"huggingface detectors of type {config.model_type!r} are not supported; expected {sorted(ACTIVATIONS)}, "
            "or `output: {decode: FILE.py}`"
        )
    return OutputFormat.model_validate({"format": "detr", "activation": ACTIVATIONS[config.model_type]})


def find_preprocessing(recipe: Recipe, network: Any) -> PreprocessingConfig:
    """Return what the image processor does, checked against the processor itself on a picture."""
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(
            find_location(recipe), trust_remote_code=recipe.model.trusts_remote_code
        )
    except (OSError, ValueError, ImportError) as error:
        raise ConfigError(_cannot_read(recipe, "preprocessor_config.json", error)) from error
    preprocessing = preprocessing_of(processor)
    if preprocessing.resize.canvas is not None and network.config.model_type in MASKED:
        raise ConfigError(
            f"{type(processor).__name__} pads pictures to pad_size {preprocessing.resize.canvas}, and models of type "
            f"{network.config.model_type!r} need a mask of that padding, which is not served; set do_pad to false in "
            "preprocessor_config.json: a picture alone needs no padding"
        )
    check_preprocessing(processor, preprocessing)
    return preprocessing


def check_preprocessing(processor: Any, preprocessing: PreprocessingConfig) -> None:
    """Raises ConfigError when the processor prepares a picture in another way: it has steps of its own."""
    [image] = load_photographs(1)
    expected = processor(images=PIL.Image.fromarray(image), return_tensors="pt")["pixel_values"]
    pixels = preprocess_images([image], preprocessing).pixels
    found = Normalize(preprocessing)(pixels)
    if found.shape != expected.shape:
        difference = f"a picture becomes {tuple(expected.shape)}, ours {tuple(found.shape)}"
    else:
        mean_difference = float((found - expected).abs().mean())
        if mean_difference <= LARGEST_MEAN_DIFFERENCE:
            return
        difference = f"its normalised pixels differ by {mean_difference:.3f} on average"
    raise ConfigError(
        f"{type(processor).__name__} prepares pictures in a way that its settings do not tell ({difference}); "
        "state `preprocessing` in the recipe"
    )


def find_labels(_: Recipe, network: Any) -> list[str]:
    """Return the configuration's `id2label`."""
    labels = network.config.id2label
    return [str(labels[class_id]) for class_id in sorted(labels)]


def default_options(network: Any) -> dict[str, Any]:
    """Return the limits: no NMS (no IoU is above 1), and as many boxes of a picture as their processors keep."""
    model_type = network.config.model_type
    if model_type not in ACTIVATIONS:
        return {}
    boxes = getattr(network.config, "num_queries", None) or getattr(network.config, "num_detection_tokens", None)
    most = BEST_OF_ALL_COUNT if model_type in BEST_OF_ALL or boxes is None else boxes
    return {"iou_threshold": 1.0, "max_detections": min(most, MOST_DETECTIONS)}
