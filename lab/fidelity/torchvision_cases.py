"""torchvision's classifiers with the transforms of their weights, and its detectors with the transform inside them."""

from functools import partial
from pathlib import Path
from typing import Any

import PIL.Image
from torch import Tensor, nn
from torchvision import models
from torchvision.transforms.functional import pil_to_tensor

from lab.fidelity.compared_models import (
    READER,
    SCORE_THRESHOLD,
    ComparedModel,
    ModelCase,
    classify,
    open_own_archive,
    open_reader,
    write_recipe,
)
from mar_tools.models.sources import load_source
from mar_tools.verification.observations import Observation

# Those that answer themselves; READER answers for the others.
QUICK = {"alexnet", "squeezenet1_1", "mobilenet_v3_large"}
CLASSIFIERS = (
    ("resnet50", "IMAGENET1K_V1"),
    ("resnet50", "IMAGENET1K_V2"),
    ("alexnet", "IMAGENET1K_V1"),
    ("squeezenet1_1", "IMAGENET1K_V1"),
    ("mobilenet_v3_large", "IMAGENET1K_V2"),
    ("regnet_y_400mf", "IMAGENET1K_V2"),
    ("efficientnet_b0", "IMAGENET1K_V1"),
    ("efficientnet_b1", "IMAGENET1K_V2"),
    ("efficientnet_b3", "IMAGENET1K_V1"),
    ("efficientnet_v2_s", "IMAGENET1K_V1"),
    ("inception_v3", "IMAGENET1K_V1"),
    ("convnext_tiny", "IMAGENET1K_V1"),
    ("swin_t", "IMAGENET1K_V1"),
    ("swin_v2_t", "IMAGENET1K_V1"),
    ("vit_b_16", "IMAGENET1K_V1"),
    ("vit_b_16", "IMAGENET1K_SWAG_E2E_V1"),
    ("maxvit_t", "IMAGENET1K_V1"),
)
# How many pictures they answer: few where they are slow; none where untrained class scores are all the same.
DETECTORS = {
    "ssd300_vgg16": 0,
    "ssdlite320_mobilenet_v3_large": 6,
    "fasterrcnn_mobilenet_v3_large_320_fpn": 6,
    "fasterrcnn_mobilenet_v3_large_fpn": 3,
    "fcos_resnet50_fpn": 2,
    "retinanet_resnet50_fpn": 2,
}


def open_classifier(folder: Path, name: str, weights: str) -> ComparedModel:
    model = {"source": "torchvision", "name": name}
    published = write_recipe(folder, {"task": "classification", "model": {**model, "weights": weights}})
    preprocessing = load_source("torchvision").find_preprocessing(published, nn.Identity())
    prepare = models.get_model_weights(name)[weights].transforms()
    if name in QUICK:
        stated = preprocessing.model_dump(mode="json", exclude_none=True)
        random = {"task": "classification", "model": {**model, "weights": "random"}, "preprocessing": stated}
        network, handler = open_own_archive(write_recipe(folder, random))
    else:
        network, handler = open_reader(folder, preprocessing)
    return ComparedModel(preprocessing, handler, prepare, classify(network, prepare))


def open_detector(folder: Path, name: str) -> ComparedModel:
    model = {"source": "torchvision", "name": name, "weights": "random"}
    options = {"score_threshold": SCORE_THRESHOLD}
    network, handler = open_own_archive(write_recipe(folder, {"task": "detection", "model": model, "options": options}))
    owner: Any = getattr(network, "roi_heads", network)
    owner.score_thresh = SCORE_THRESHOLD
    return ComparedModel(
        handler.config.preprocessing, handler, partial(prepare_for, network), partial(find_boxes, network)
    )


def prepare_for(detector: Any, picture: PIL.Image.Image) -> Tensor:
    """Return what the detector's own transform makes of a picture, without the zeros that fill up a batch."""
    prepared, _ = detector.transform([pil_to_tensor(picture) / 255])
    height, width = prepared.image_sizes[0]
    tensor: Tensor = prepared.tensors[0, :, :height, :width]
    return tensor


def find_boxes(detector: Any, picture: PIL.Image.Image) -> Observation:
    [found] = detector([pil_to_tensor(picture) / 255])
    return {"boxes": found["boxes"], "scores": found["scores"], "class_ids": found["labels"]}


CASES = tuple(
    ModelCase(
        "torchvision",
        f"{name} {weights}",
        partial(open_classifier, name=name, weights=weights),
        network=None if name in QUICK else READER,
    )
    for name, weights in CLASSIFIERS
) + tuple(
    ModelCase("torchvision", name, partial(open_detector, name=name), answered=answered)
    for name, answered in DETECTORS.items()
)
