"""The network that is compressed: how good it is on its recipe's own pictures, and what it is trained further with."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from mar_tools.images import show_line
from mar_tools.models.checkpoints import Checkpoint, load_checkpoint
from mar_tools.models.recipes import BaselineRecipe, Recipe, read_recipe
from mar_tools.models.weights import RANDOM
from mar_tools.terminal import print_line
from mar_tools.training.courses import SPLIT
from mar_tools.training.fitting import new_loader
from mar_tools.training.folders import NAMED, LabelledPicture, Part, read_class_folders
from mar_tools.training.pictures import PictureDataset
from mar_tools.training.records import read_record
from mar_tools.training.settings import Settings
from mar_tools.training.splitting import Split, check_same_split, split_pictures, write_split
from mar_tools.verification.labelled import Truth, VerificationImages, read_verification_images
from vision_serving.config import ColourConfig, DeviceType, HandlerConfig, PreprocessingConfig
from vision_serving.errors import ConfigError
from vision_serving.graphs.construction import build_graph
from vision_serving.worker.model_card import digest_file

TRAINABLE = ("torchvision", "timm", "python")  # sources whose networks are Python code, rebuilt with other shapes


@dataclass(frozen=True)
class Original:
    """A trained classifier. heldout: pictures that judge it and what is made of it; accuracy: its own on them."""

    recipe: Recipe
    checkpoint: Checkpoint
    heldout: VerificationImages
    accuracy: float

    @property
    def preprocessing(self) -> PreprocessingConfig:
        return self.checkpoint.preprocessing

    @property
    def baseline(self) -> BaselineRecipe:
        """Return what results are compared with: what stood before all compressing, so that losses add up."""
        stated = self.recipe.baseline
        if stated is not None and stated.accuracy is not None:
            return stated
        return BaselineRecipe(name=self.recipe.name, accuracy=self.accuracy, pictures=len(self.heldout.paths))

    @property
    def baseline_accuracy(self) -> float:
        return self.baseline.accuracy or self.accuracy

    def judge(self, graph: nn.Module, preprocessing: PreprocessingConfig, device_type: DeviceType) -> float:
        """Return the accuracy of a graph that was made of it, on the same pictures."""
        return measure_top1(graph, self.heldout, preprocessing, device_type, self.recipe.colours)


def read_original(recipe: Recipe, device_type: DeviceType) -> Original:
    """Load the network of a recipe and judge it. Raises ConfigError for what cannot be compressed or judged."""
    if recipe.task != "classification":
        raise ConfigError(f"{recipe.name}: only classifiers are compressed yet, and this is task {recipe.task}")
    if recipe.model.source not in TRAINABLE:
        raise ConfigError(
            f"{recipe.name}: source {recipe.model.source} cannot be trained further; expected one of "
            f"{', '.join(TRAINABLE)}, whose networks are Python code"
        )
    if recipe.model.fake_quantization is not None:
        raise ConfigError(
            f"{recipe.name}: it was trained with the values of int8 already, which further changes would undo; "
            "compress the network that it was made of"
        )
    if recipe.model.weights == RANDOM:
        raise ConfigError(f"{recipe.name}: its weights are random; compress a network that was trained")
    if recipe.verification.labels is None:
        raise ConfigError(
            f"{recipe.name}: its recipe has no labelled pictures, so nobody would see what is lost; state `images` and "
            "`labels` under `verification`"
        )
    checkpoint = load_checkpoint(recipe)
    check_scores(checkpoint, recipe.name)
    heldout = read_heldout(recipe, checkpoint)
    graph = graph_of(checkpoint.network, checkpoint, checkpoint.preprocessing)
    accuracy = measure_top1(graph, heldout, checkpoint.preprocessing, device_type, recipe.colours)
    return Original(recipe, checkpoint, heldout, accuracy)


def check_scores(checkpoint: Checkpoint, name: str) -> None:
    """Raises ConfigError for answers that no training here compares, and pictures that make no batch."""
    if checkpoint.source.output.activation == "sigmoid":
        raise ConfigError(f"{name}: classifiers with several labels a picture are not compressed yet")
    if checkpoint.preprocessing.fixed_hw is None:
        raise ConfigError(f"{name}: its pictures have many sizes, and a training batch needs one")


def load_teacher(recipe: Path, original: Original) -> Checkpoint:
    """Load the network of a recipe to learn from. Raises ConfigError for one that cannot teach these classes."""
    found = read_recipe(recipe)
    if found.task != "classification" or found.model.weights == RANDOM:
        what = f"task {found.task}" if found.task != "classification" else "random weights"
        raise ConfigError(f"--distil-from {recipe}: it has {what}; expected a trained classifier")
    checkpoint = load_checkpoint(found)
    check_scores(checkpoint, f"--distil-from {recipe}")
    if checkpoint.labels != original.checkpoint.labels:
        raise ConfigError(
            f"--distil-from {recipe}: its classes are not those of {original.recipe.name}; expected the same labels in "
            "the same order"
        )
    return checkpoint


def graph_of(network: nn.Module, checkpoint: Checkpoint, preprocessing: PreprocessingConfig) -> nn.Module:
    """Return the served graph of a network that has taken the place of a checkpoint's own, in eval mode."""
    return build_graph(
        network, "classification", preprocessing, checkpoint.source.output, checkpoint.source.inputs
    ).requires_grad_(True)


def read_heldout(recipe: Recipe, checkpoint: Checkpoint) -> VerificationImages:
    """Return the pictures that the recipe verifies with."""
    config = HandlerConfig(
        task=recipe.task,
        backend="eager",
        precision="fp32",
        artifact="none",
        activation=checkpoint.source.output.class_activation(recipe.task),
        preprocessing=checkpoint.preprocessing,
        limits=recipe.limits,
    )
    return read_verification_images(recipe.verification.located_in(recipe.folder), config, checkpoint.labels)


@torch.inference_mode()
def measure_top1(
    graph: nn.Module,
    images: VerificationImages,
    preprocessing: PreprocessingConfig,
    device_type: DeviceType,
    colours: ColourConfig,
) -> float:
    """Return the share of the pictures whose best class is a true one, prepared as the server does it."""
    pictures = [LabelledPicture(path=path, class_id=index, digest="") for index, path in enumerate(images.paths)]
    data = PictureDataset(pictures, preprocessing, colours=colours)
    batches = new_loader(data, Settings(batch_size=64), training=False)
    truth: Sequence[Truth] = images.truth or ()
    hits = 0
    graph = graph.to(device_type).eval()
    for pixels, indices in batches:
        best = graph(pixels.to(device_type))["logits"].argmax(1).cpu()
        hits += sum(
            int(found) in truth[index]["class_ids"].tolist() for found, index in zip(best, indices, strict=True)
        )
    return hits / len(pictures)


def read_data(data: Path, original: Original, output: Path, seed: int, resume: bool) -> Split[LabelledPicture]:
    """Divide a folder of pictures for training, in the order of the network's classes.

    A split that lies beside the original's recipe is kept. What the recipe verifies with never trains. Raises
    ConfigError for other classes than the network's, and where too little is left to train with.
    """
    kept = output / SPLIT
    output.mkdir(parents=True, exist_ok=True)
    beside = original.recipe.path(SPLIT)
    if beside.is_file() and not (resume and kept.exists()):  # else one of an earlier original may lie there
        shutil.copyfile(beside, kept)
    found = read_class_folders(data)
    labels = original.checkpoint.labels
    unknown = [show_line(name) for name in found.labels if name not in labels]
    missing = [show_line(name) for name in labels if name not in found.labels]
    if unknown or missing:
        told = f"{len(unknown)} folders are none of its classes" if unknown else f"{len(missing)} classes are missing"
        raise ConfigError(
            f"{data}: {told}: {', '.join((unknown or missing)[:NAMED])}; expected a folder for each of the "
            f"{len(labels)} classes of {original.recipe.name}"
        )
    numbers = [labels.index(name) for name in found.labels]
    pictures = [replace(picture, class_id=numbers[picture.class_id]) for picture in found.pictures]
    folder = replace(found, pictures=pictures, labels=labels)
    split = split_pictures(folder, kept, seed)
    if resume and kept.exists():
        check_same_split(split, data, kept)
    write_split(split, data, kept)
    judging = {digest_file(path) for path in original.heldout.paths}
    left = {
        part: [picture for picture in pictures if picture.digest not in judging] for part, pictures in split.items()
    }
    used: Sequence[Part] = ("train", "validation")
    if count := sum(len(split[part]) - len(left[part]) for part in used):
        print_line(f"{count} pictures in {data} are those that the recipe verifies with: they are left out")
    for part in used:
        folder.check_part(part, left[part])
    return left


def settings_of(recipe: Recipe) -> dict[str, object]:
    """Return what a training beside the recipe says of how its pictures may be changed."""
    found = read_record(recipe.folder).get("settings", {})
    return {key: found[key] for key in ("augment", "flip") if key in found}
