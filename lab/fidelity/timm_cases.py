"""timm's models with the transform that timm makes of their data configuration."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import timm
import timm.data

from lab.fidelity.compared_models import (
    READER,
    ComparedModel,
    ModelCase,
    classify,
    open_own_archive,
    open_reader,
    write_recipe,
)
from mar_tools.models.sources.timm import preprocessing_of_data_config

# With the arguments of those that are not built as they are published. They answer themselves.
QUICK: dict[str, Mapping[str, Any]] = {
    "resnet10t.c3_in1k": {},
    "test_resnet.r160_in1k": {},
    "vit_tiny_patch16_224.augreg_in21k_ft_in1k": {},
    "vit_tiny_patch16_224.augreg_in21k_ft_in1k, img_size 160": {"img_size": 160},
    "tinynet_e.in1k": {},
    "tf_mobilenetv3_small_minimal_100.in1k": {},
}
# Data configurations alone: READER answers.
PUBLISHED = (
    "efficientnet_b0.ra_in1k",
    "convnext_atto.d2_in1k",
    "mobilevit_xxs.cvnets_in1k",
    "convnext_tiny.in12k_ft_in1k_384",
    "cait_xxs24_384.fb_dist_in1k",
    "dpn68.mx_in1k",
    "eva02_tiny_patch14_336.mim_in22k_ft_in1k",
    "inception_v4.tf_in1k",
    "vit_base_patch32_clip_384.openai_ft_in12k_in1k",
    "vit_base_patch16_sapiens2.fb",
    "deepseek_vit_412m.deepseek_v4_flash_vision_exp",
)
# What timm knows and hardly any published model uses, on top of resnet10t's.
CHANGED: dict[str, Mapping[str, Any]] = {
    "border": {"crop_mode": "border", "crop_pct": 0.9},
    "not square": {"input_size": (3, 160, 224)},
    "squash, not square": {"crop_mode": "squash", "input_size": (3, 160, 224)},
    "nearest": {"interpolation": "nearest"},
    "lanczos": {"interpolation": "lanczos"},
    "box": {"interpolation": "box"},
    "hamming": {"interpolation": "hamming"},
}
BASE = "resnet10t.c3_in1k"


def open_model(folder: Path, name: str, arguments: Mapping[str, Any]) -> ComparedModel:
    """Return a model that answers itself."""
    model = {"source": "timm", "name": name.partition(",")[0], "weights": "random", "arguments": dict(arguments)}
    network, handler = open_own_archive(write_recipe(folder, {"task": "classification", "model": model}))
    size = arguments.get("img_size")
    changes = {} if size is None else {"input_size": (3, size, size)}
    config = timm.data.resolve_model_data_config(network, args=changes)
    prepare = timm.data.create_transform(**config, is_training=False)
    return ComparedModel(handler.config.preprocessing, handler, prepare, classify(network, prepare))


def open_configuration(folder: Path, name: str, changes: Mapping[str, Any]) -> ComparedModel:
    """Return a published data configuration, changed."""
    published = timm.models.get_pretrained_cfg(name).to_dict()
    config = timm.data.resolve_data_config(args=dict(changes), pretrained_cfg=published)
    preprocessing = preprocessing_of_data_config(config)
    prepare = timm.data.create_transform(**config, is_training=False)
    network, handler = open_reader(folder, preprocessing)
    return ComparedModel(preprocessing, handler, prepare, classify(network, prepare))


CASES = (
    *(ModelCase("timm", name, partial(open_model, name=name, arguments=given)) for name, given in QUICK.items()),
    *(
        ModelCase("timm", name, partial(open_configuration, name=name, changes={}), network=READER)
        for name in PUBLISHED
    ),
    *(
        ModelCase("timm", f"{BASE}, {title}", partial(open_configuration, name=BASE, changes=changes), network=READER)
        for title, changes in CHANGED.items()
    ),
)
