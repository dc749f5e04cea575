"""One model to compare: our archive of it, and what its library does with a picture."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import PIL.Image
import yaml
from torch import Tensor, nn

from mar_tools.exporting.export import export_model
from mar_tools.models.checkpoints import load_checkpoint
from mar_tools.models.recipes import Recipe, read_recipe
from mar_tools.verification.observations import Observation, load_handler
from vision_serving.config import PreprocessingConfig
from vision_serving.handler import VisionHandler

Library = Literal["torchvision", "timm", "huggingface"]
Prepare = Callable[[PIL.Image.Image], Tensor]  # -> float (3, H, W), normalised, as the network takes it
LibraryAnswer = Callable[[PIL.Image.Image], Observation]

# A network that is quick at any size reads the pixels of a classifier that is not.
READER = "squeezenet1_1"
SCORE_THRESHOLD = 0.05  # of detectors, in the library and in the archive


@dataclass(frozen=True)
class ComparedModel:
    """preprocessing: frozen, as our tools took it from the checkpoint. handler: of our eager archive.

    prepare, answer: the library's. answer gives `logits` (C,), or of detections `boxes`, `scores` and `class_ids`.
    """

    preprocessing: PreprocessingConfig
    handler: VisionHandler
    prepare: Prepare
    answer: LibraryAnswer


@dataclass(frozen=True)
class ModelCase:
    """A model of a library. network: what answers for it. answered: how many pictures get answers, the first ones."""

    library: Library
    name: str
    open: Callable[[Path], ComparedModel]
    network: str | None = None
    answered: int = 6

    @property
    def full_name(self) -> str:
        return f"{self.library}/{self.name}"


def write_recipe(folder: Path, document: Mapping[str, Any]) -> Recipe:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({"name": "compared", **document}))
    return read_recipe(path)


def open_own_archive(recipe: Recipe) -> tuple[nn.Module, VisionHandler]:
    """Return the recipe's network, and the handler of its eager archive: loaded from files, as a worker does."""
    checkpoint = load_checkpoint(recipe)
    return checkpoint.network, load_handler(
        export_model(recipe, checkpoint, "eager", "fp32", recipe.folder / "exports")
    )


def open_reader(folder: Path, preprocessing: PreprocessingConfig) -> tuple[nn.Module, VisionHandler]:
    """Open READER behind the preprocessing of another model."""
    model = {"source": "torchvision", "name": READER, "weights": "random"}
    stated = preprocessing.model_dump(mode="json", exclude_none=True)
    return open_own_archive(write_recipe(folder, {"task": "classification", "model": model, "preprocessing": stated}))


def classify(network: nn.Module, prepare: Prepare) -> LibraryAnswer:
    """Return the logits that a network gives to what its library prepares."""

    def answer(picture: PIL.Image.Image) -> Observation:
        outputs: Any = network(prepare(picture).unsqueeze(0))
        logits: Tensor = getattr(outputs, "logits", outputs)
        return {"logits": logits[0]}

    return answer
