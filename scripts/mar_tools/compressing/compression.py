"""One result: from the original by some steps to a network that has learnt to do with less, and its recipe."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mar_tools.compressing.distilling import TaughtDataset, TaughtTraining, Teacher
from mar_tools.compressing.handing_over import hand_over
from mar_tools.compressing.originals import Original, graph_of, load_teacher
from mar_tools.compressing.pruning import ESTIMATED, count_parameters, estimate_batch_norms, prune_channels
from mar_tools.compressing.quantising import first_answer, gentle, measure_ranges, quantise_network
from mar_tools.compressing.steps import Steps
from mar_tools.models.checkpoints import load_checkpoint
from mar_tools.models.recipes import read_recipe
from mar_tools.terminal import print_line
from mar_tools.training.fitting import Fitted, fit, new_loader
from mar_tools.training.folders import LabelledPicture
from mar_tools.training.handing_over import take_back_recipe
from mar_tools.training.networks import check_size, resize_for
from mar_tools.training.pictures import PictureDataset, new_change
from mar_tools.training.settings import Settings
from mar_tools.training.splitting import Split
from vision_serving.config import DeviceType, PreprocessingConfig
from vision_serving.errors import ConfigError
from vision_serving.graphs.sources import load_state

FLOATS, INT8 = "checkpoints/floats", "checkpoints/int8"
CHECKED = 8  # pictures whose answers are compared after the network was rebuilt from its recipe
REBUILT_DIFFERENCE = 1e-3  # of the answers, beside their largest


@dataclass(frozen=True)
class Compression:
    """What all results of one run share. settings: of the training; max_drop: of accuracy, that a recipe allows."""

    original: Original
    split: Split[LabelledPicture]
    settings: Settings
    device_type: DeviceType
    max_drop: float

    def loader(self, part: str, preprocessing: PreprocessingConfig, count: int) -> Iterator[Tensor]:
        """Yield batches of pixels of a part, on the device, as the server prepares them."""
        pictures = self.split[part][:: max(1, len(self.split[part]) // count)][:count]  # type: ignore[index]
        colours = self.original.recipe.colours
        data = PictureDataset(pictures, preprocessing, colours=colours)
        for pixels, _ in new_loader(data, self.settings, training=False):
            yield pixels.to(self.device_type)


def compress(run: Compression, steps: Steps, output: Path, name: str) -> dict[str, Any]:
    """Do the steps and write the folder of the result; return what there is to tell."""
    torch.manual_seed(run.settings.seed)
    checkpoint, original = run.original.checkpoint, run.original
    preprocessing = resize_for(checkpoint.preprocessing, steps.size)
    network = copy.deepcopy(checkpoint.network)
    check_size(network, preprocessing)
    before = count_parameters(network)
    source = checkpoint.source
    if steps.prune is not None:
        prune_channels(network, steps.prune, example_images(checkpoint.network, preprocessing))
        source = source.model_copy(update={"shapes": "weights"})
    graph = graph_of(network, checkpoint, preprocessing).to(run.device_type)
    teacher = None if steps.teacher is None else read_teacher(steps.teacher, original, run.device_type)
    epochs: dict[str, Any] = {}
    if steps.trains_floats:
        if steps.prune is not None or steps.size is not None:
            estimate_batch_norms(graph, run.loader("train", preprocessing, ESTIMATED))
            untrained = original.judge(graph, preprocessing, run.device_type)
            print_line(
                f"{name}: accuracy {untrained:.4f} before it is trained again; {original.recipe.name} has "
                f"{original.accuracy:.4f}"
            )
        fitted = train(run, graph, preprocessing, run.settings, output / FLOATS, teacher, steps.hint)
        epochs["floats"] = {"best": fitted.epoch, "of": fitted.epochs, "seconds": round(fitted.seconds, 1)}
    if steps.quantise is not None:
        taught = teacher or Teacher(copy.deepcopy(graph).eval().requires_grad_(False), preprocessing)
        quantise_network(network, steps.quantise, example_images(checkpoint.network, preprocessing))
        source = source.model_copy(update={"fake_quantization": steps.quantise})
        graph = graph_of(network, checkpoint, preprocessing).to(run.device_type)
        measure_ranges(graph, run.loader("train", preprocessing, ESTIMATED))
        fitted = train(run, graph, preprocessing, gentle(run.settings), output / INT8, taught)
        epochs["int8"] = {"best": fitted.epoch, "of": fitted.epochs, "seconds": round(fitted.seconds, 1)}
    accuracy = original.judge(graph, preprocessing, run.device_type)
    recipe = hand_over(output, name, steps, source, network.cpu(), preprocessing, original, run.split, run.max_drop)
    check_rebuilt(recipe, network, preprocessing)
    return {
        "recipe": str(recipe),
        "steps": steps.model_dump(mode="json", exclude_none=True),
        "accuracy": round(accuracy, 4),
        "baseline_accuracy": round(original.baseline_accuracy, 4),
        "drop": round(original.baseline_accuracy - accuracy, 4),
        "is_within": original.baseline_accuracy - accuracy <= run.max_drop + 1e-9,
        "parameters": count_parameters(network),
        "parameters_before": before,
        "epochs": epochs,
        "pictures": len(original.heldout.paths),
    }


def train(
    run: Compression,
    graph: nn.Module,
    preprocessing: PreprocessingConfig,
    settings: Settings,
    folder: Path,
    teacher: Teacher | None,
    hint: tuple[str, str] | None = None,
) -> Fitted:
    """Train the network of a graph, and leave it with the weights of its best epoch."""
    size_hw = preprocessing.fixed_hw
    assert size_hw is not None
    colours = run.original.recipe.colours
    judged = PictureDataset(run.split["validation"], preprocessing, colours=colours)
    larger = preprocessing
    if teacher is not None and (teacher.preprocessing.fixed_hw or size_hw) > size_hw:
        larger = teacher.preprocessing
    change = new_change(settings.augment, settings.flip, larger)
    pictures, seed = run.split["train"], settings.seed
    trained: Any = PictureDataset(pictures, preprocessing, change, seed, colours)
    if teacher is not None:
        trained = TaughtDataset(pictures, preprocessing, teacher.preprocessing, change, seed, colours)
    training = TaughtTraining(graph, len(run.original.checkpoint.labels), settings, teacher, size_hw=size_hw, hint=hint)
    fitted = fit(training, (trained, judged), settings, folder, run.device_type)
    load_state(graph.network, fitted.network_state())  # type: ignore[arg-type]
    graph.eval()
    return fitted


def read_teacher(recipe: Path, original: Original, device_type: DeviceType) -> Teacher:
    """Return the network of a recipe as a teacher. Raises ConfigError for one that cannot teach these classes."""
    checkpoint = load_teacher(recipe, original)
    graph = graph_of(checkpoint.network, checkpoint, checkpoint.preprocessing)
    return Teacher(graph.to(device_type).eval().requires_grad_(False), checkpoint.preprocessing)


def example_images(network: nn.Module, preprocessing: PreprocessingConfig) -> Tensor:
    """Return normalised noise that a network takes, two images."""
    generator = torch.Generator().manual_seed(0)
    size = preprocessing.fixed_hw or (0, 0)
    device = next(network.parameters()).device
    return torch.randn(2, preprocessing.channels, *size, generator=generator).to(device)


@torch.inference_mode()
def check_rebuilt(recipe: Path, network: nn.Module, preprocessing: PreprocessingConfig) -> None:
    """Check that the recipe gives the network that was trained. Raises ConfigError."""
    images = example_images(network, preprocessing)
    rebuilt = load_checkpoint(read_recipe(recipe)).network
    expected, found = first_answer(network.eval()(images)), first_answer(rebuilt(images))
    difference = float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-8))
    if difference > REBUILT_DIFFERENCE:
        take_back_recipe(recipe.parent)
        raise ConfigError(
            f"{recipe}: the network that it builds answers otherwise than the one that was trained, by "
            f"{difference:.3g} of its largest answer: its code depends on more than the shapes of its weights"
        )
