"""The models of the sweep: every classifier and detector of torchvision, and one of each of many families of timm."""

import math
from typing import Literal

from torchvision import models

from mar_tools.models.recipes import CalibrationRecipe, Recipe, VerificationRecipe
from mar_tools.models.sources.torchvision import preprocessing_of_preset
from mar_tools.models.weights import RANDOM
from vision_serving.config import PreprocessingConfig
from vision_serving.graphs.sources import SourceName
from vision_serving.options import Task
from vision_serving.validation import StrictModel, parse_config

Group = Literal["classification", "timm", "detection"]

# In torchvision's lists of builders the quantised ones have a list of their own: they hold eager int8 kernels, which
# no exporter takes, of networks that are here in fp32.
BUILDERS = {"classification": models, "detection": models.detection}
GROUPS: dict[Group, tuple[SourceName, Task]] = {
    "classification": ("torchvision", "classification"),
    "timm": ("timm", "classification"),
    "detection": ("torchvision", "detection"),
}
TIMM_MODELS = (
    "coatnet_nano_rw_224",
    "convnextv2_atto",
    "deit3_small_patch16_224",
    "efficientvit_b0",
    "eva02_tiny_patch14_336",
    "fastvit_t8",
    "ghostnetv3_100",
    "hgnetv2_b0",
    "levit_128s",
    "mobilenetv4_conv_small",
    "mobileone_s0",
    "repvit_m0_9",
    "resnetv2_50",
    "swinv2_tiny_window8_256",
    "vit_small_patch16_224",
)

# Its default weights are for pictures of 384 pixels; these, for 224, take a third of the time.
WEIGHTS_OF_SMALL_PICTURES = {"regnet_y_128gf": "IMAGENET1K_SWAG_LINEAR_V1"}

VERIFICATION_IMAGES = 3
CALIBRATION_IMAGES = 8


class ZooModel(StrictModel):
    group: Group
    name: str

    def recipe(self) -> Recipe:
        """Return a recipe with random weights, and everything else as the library states it."""
        source, task = GROUPS[self.group]
        values = {
            "name": self.name,
            "task": task,
            "model": {"source": source, "name": self.name, "weights": RANDOM},
            "preprocessing": self._preprocessing(),
            "calibration": CalibrationRecipe(count=CALIBRATION_IMAGES),
            "verification": VerificationRecipe(count=VERIFICATION_IMAGES),
        }
        return parse_config(Recipe, values, f"{self.group} model {self.name}")

    def _preprocessing(self) -> PreprocessingConfig | Literal["auto"]:
        if self.name not in WEIGHTS_OF_SMALL_PICTURES:
            return "auto"
        published = models.get_model_weights(self.name)[WEIGHTS_OF_SMALL_PICTURES[self.name]]
        return preprocessing_of_preset(published.transforms())


def list_zoo() -> list[ZooModel]:
    """Return all models, the cheap ones of a group first: an unfinished sweep has tried as many as can be."""
    names: dict[Group, list[str]] = {
        "classification": sorted(models.list_models(module=BUILDERS["classification"]), key=_giga_operations),
        "timm": list(TIMM_MODELS),
        "detection": sorted(models.list_models(module=BUILDERS["detection"]), key=_giga_operations),
    }
    return [ZooModel(group=group, name=name) for group in GROUPS for name in names[group]]


def _giga_operations(name: str) -> float:
    """Return giga-operations of one image, as torchvision publishes them."""
    weights = models.get_model_weights(name)
    published = weights[WEIGHTS_OF_SMALL_PICTURES.get(name, weights.DEFAULT.name)].meta.get("_ops")
    return math.inf if published is None else float(published)
