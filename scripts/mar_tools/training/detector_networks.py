"""The detector that a training begins with: of torchvision, or the compact one of the examples."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mar_tools.command_line import ROOT
from mar_tools.models.recipes import Recipe, is_weights_file
from mar_tools.models.sources import load_source
from mar_tools.models.sources.torchvision import preprocessing_of_detector
from mar_tools.models.weights import RANDOM, read_state_dict
from mar_tools.training.boxed_pictures import Example
from mar_tools.training.networks import DEFAULT, Start, take_fitting
from vision_serving.config import PreprocessingConfig, ResizeConfig
from vision_serving.errors import ConfigError
from vision_serving.graphs.construction import find_detector_graph
from vision_serving.graphs.pixels import Normalize
from vision_serving.graphs.python_files import load_attribute
from vision_serving.graphs.sources import NetworkSource, build_network
from vision_serving.validation import parse_config

COMPACT, COMPACT_CLASS = "compact", "CompactDetector"
COMPACT_FOLDER = ROOT / "examples" / "digits_detection"
COMPACT_FILES = ("detector.py", "loss.py")
COMPACT_SIZE, COMPACT_STEP = 256, 16
WITH_BACKGROUND = {"SSD", "FasterRCNN"}  # whose class 0 is no object
TRAINED_ALONE = {"SsdGraph", "RetinaNetGraph", "FcosGraph", "RcnnGraph"}  # of boxes; others need masks or keypoints
OF_MORE = ("maskrcnn", "keypointrcnn")
ComputeLoss = Callable[[nn.Module, list[Example]], Tensor]


@dataclass(frozen=True)
class DetectorStart(Start):
    """A detector to train. first_class: 1 where its class 0 is the background. compute_loss: of a batch, in training.

    keeps_statistics: whether its batch norm stays as its weights have it. learning_rate, batch_size: what suits it.
    """

    first_class: int
    compute_loss: ComputeLoss
    keeps_statistics: bool
    learning_rate: float
    batch_size: int


def is_detector(name: str) -> bool:
    """Return whether a name is that of a detector."""
    from torchvision import models

    return name == COMPACT or name in models.list_models(module=models.detection)


def start_detector(name: str, weights: str, classes: int, size: int | None) -> DetectorStart:
    """Build a detector for so many classes, with the layers of weights that fit it.

    weights: as of `start_network`; of the compact one a file, else random ones. size: of the compact one's square, or
    of the shorter side. Raises ConfigError for what is no detector of boxes, other weights and sizes.
    """
    if name == COMPACT:
        return start_compact(weights, classes, size or COMPACT_SIZE)
    from torchvision import models

    if not is_detector(name):
        boxes = [each for each in models.list_models(module=models.detection) if not each.startswith(OF_MORE)]
        known = ", ".join([COMPACT, *boxes])
        raise ConfigError(f"--model {name}: the folder has annotations, so expected a detector: {known}")
    return start_torchvision(name, weights, classes, size)


def start_torchvision(name: str, weights: str, classes: int, size: int | None) -> DetectorStart:
    is_file = weights not in (DEFAULT, RANDOM) and is_weights_file(weights, Path())
    published = RANDOM if is_file else "DEFAULT" if weights == DEFAULT else weights
    model = {"source": "torchvision", "name": name, "weights": published}
    recipe = parse_config(Recipe, {"name": "start", "task": "detection", "model": model}, f"--model {name}")
    network, source = load_source("torchvision").load_network(recipe)
    graph = find_detector_graph(network)
    if graph is None or graph.__name__ not in TRAINED_ALONE:
        raise ConfigError(f"--model {name}: its training needs masks or keypoints; expected a detector of boxes alone")
    first_class = int(any(kind.__name__ in WITH_BACKGROUND for kind in type(network).__mro__))
    arguments = {**source.arguments, "num_classes": classes + first_class, **size_arguments(network, size)}
    source = source.model_copy(update={"arguments": arguments})
    started, taken = build_network(source, Path()), "random weights"
    if weights != RANDOM:
        state = read_state_dict(Path(weights), None) if is_file else network.state_dict()
        taken = take_fitting(started, state, weights)
    is_mobile = "mobilenet" in name or name.startswith("ssd")
    return DetectorStart(
        network=started,
        source=source,
        preprocessing=preprocessing_of_detector(started.transform),
        taken=taken,
        first_class=first_class,
        compute_loss=compute_torchvision_loss,
        keeps_statistics=any(type(module).__name__ == "FrozenBatchNorm2d" for module in network.modules()),
        learning_rate=5e-4 if is_mobile else 1e-4,
        batch_size=16 if is_mobile else 4,
    )


def size_arguments(network: Any, size: int | None) -> dict[str, int]:
    """Return what builds a detector for pictures whose shorter side is `size`. Raises ConfigError for fixed sizes."""
    if size is None:
        return {}
    transform = network.transform
    if transform.fixed_size is not None:
        width, height = transform.fixed_size
        if size not in (width, height):
            raise ConfigError(f"--size {size}: this detector takes pictures of {height} x {width} alone")
        return {}
    return {"min_size": size, "max_size": round(size * transform.max_size / transform.min_size[-1])}


def compute_torchvision_loss(network: nn.Module, examples: list[Example]) -> Tensor:
    """Return the sum of the losses that torchvision defines for its detector; it normalises by itself."""
    network.transform._skip_resize = True  # type: ignore[union-attr]  # the examples have their size
    images = [example.pixels.permute(2, 0, 1) / 255 for example in examples]
    targets = [{"boxes": example.boxes, "labels": example.class_ids} for example in examples]
    losses: dict[str, Tensor] = network(images, targets)
    return torch.stack([loss.float() for loss in losses.values()]).sum()


def start_compact(weights: str, classes: int, size: int) -> DetectorStart:
    """Begin with the detector of `examples/digits_detection`, for other classes and perhaps another size."""
    if size % COMPACT_STEP:
        raise ConfigError(f"--size {size}: {COMPACT} takes squares with a side of a multiple of {COMPACT_STEP}")
    source = NetworkSource.model_validate(
        {
            "source": "python",
            "file": COMPACT_FILES[0],
            "class": COMPACT_CLASS,
            "arguments": {"class_count": classes, "input_size": size},
        }
    )
    started, taken = build_network(source, COMPACT_FOLDER), "random weights"
    if weights not in (DEFAULT, RANDOM):
        taken = take_fitting(started, read_state_dict(Path(weights), None), weights)
    preprocessing = PreprocessingConfig(resize=ResizeConfig(mode="letterbox", size=(size, size)))
    return DetectorStart(
        network=started,
        source=source,
        preprocessing=preprocessing,
        taken=taken,
        first_class=0,
        compute_loss=CompactLoss(preprocessing),
        keeps_statistics=False,
        learning_rate=2e-3,
        batch_size=16,
    )


class CompactLoss:
    """The loss of the compact detector, from the file beside it."""

    def __init__(self, preprocessing: PreprocessingConfig) -> None:
        self._normalize = Normalize(preprocessing)
        self._compute = load_attribute(COMPACT_FOLDER, COMPACT_FILES[1], "compute_detection_loss")

    def __call__(self, network: Any, examples: list[Example]) -> Tensor:
        pixels = torch.stack([example.pixels for example in examples])
        images = self._normalize.to(pixels.device)(pixels).contiguous(memory_format=torch.channels_last)
        logits, boxes = network.predict_logits(images)
        truth = [(example.boxes, example.class_ids) for example in examples]
        loss: Tensor = self._compute(logits, boxes, network.points, network.strides, truth)
        return loss
