"""A training whose target is also what a teacher answers: soft answers tell which classes are alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset
from torchvision.transforms.v2.functional import resize

from mar_tools.images import read_image
from mar_tools.training.classifiers import ClassifierTraining
from mar_tools.training.folders import LabelledPicture
from mar_tools.training.pictures import Change, seeded
from mar_tools.training.settings import Settings
from vision_serving.config import ColourConfig, ImageLimits, PreprocessingConfig
from vision_serving.errors import ConfigError
from vision_serving.geometry import SizeHW
from vision_serving.pictures.decoding import decode_image
from vision_serving.pictures.resizing import preprocess_images

TEMPERATURE = 4.0
TEACHER_SHARE = 0.7  # of the loss; the rest is that of the labels
HINT_SHARE = 0.5  # of the features' loss, beside the others


@dataclass(frozen=True)
class Teacher:
    """A network in eval mode, from uint8 pixels to `logits`, and how its pictures are prepared."""

    graph: nn.Module
    preprocessing: PreprocessingConfig


def distil_loss(logits: Tensor, taught: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Return the divergence from the teacher's answers, both softened (Hinton et al., 2015).

    logits, taught: (N, C). The temperature is inside of both softmaxes: dividing their logarithms by it instead
    would teach nothing. Its square keeps the gradients as large as those of the labels.
    """
    own = functional.log_softmax(logits / temperature, dim=1)
    target = functional.softmax(taught / temperature, dim=1)
    return functional.kl_div(own, target, reduction="batchmean") * temperature**2


class TaughtDataset(Dataset[tuple[Tensor, int, Tensor]]):
    """Pixels for the network, the class id, and pixels of the same picture for its teacher; see `PictureDataset`."""

    def __init__(
        self,
        pictures: Sequence[LabelledPicture],
        preprocessing: PreprocessingConfig,
        teacher: PreprocessingConfig,
        change: Change | None,
        seed: int,
        colours: ColourConfig | None = None,
    ) -> None:
        self.pictures, self.preprocessing, self.teacher = pictures, preprocessing, teacher
        self.change, self.seed, self.colours = change, seed, colours

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[Tensor, int, Tensor]:
        picture = self.pictures[index % len(self)]
        image = decode_image(read_image(picture.path), ImageLimits(), self.colours)
        if self.change is None:
            own, taught = (preprocess_images([image], each).pixels[0] for each in (self.preprocessing, self.teacher))
            return own, picture.class_id, taught
        with seeded(self.seed, index):
            changed = self.change(torch.tensor(image).permute(2, 0, 1))
        own, taught = (
            fit_to(changed, each).permute(1, 2, 0).contiguous() for each in (self.preprocessing, self.teacher)
        )
        return own, picture.class_id, taught


def fit_to(changed: Tensor, preprocessing: PreprocessingConfig) -> Tensor:
    """Return a changed picture (3, H, W) at the size of a network."""
    size = preprocessing.fixed_hw
    if size is None or size == tuple(changed.shape[1:]):
        return changed
    fitting: Tensor = resize(changed, list(size), antialias=True)
    return fitting


class TaughtTraining(ClassifierTraining):
    """The loss of the labels and that of a teacher's answers; with a hint that of its features, too."""

    def __init__(
        self,
        graph: nn.Module,
        classes: int,
        settings: Settings,
        teacher: Teacher | None = None,
        size_hw: SizeHW = (0, 0),
        hint: tuple[str, str] | None = None,
    ) -> None:
        super().__init__(graph.network, graph.normalize, classes, settings)  # type: ignore[arg-type]
        # In tuples, so that they are no part of the weights: the graph would be there twice, the teacher for nothing.
        self._graph, self._teacher = (graph,), (teacher,)
        self._features: dict[str, Tensor] = {}
        self.adapter: nn.Module | None = None
        if hint is not None and teacher is not None:
            self.adapter = self._new_adapter(
                graph, teacher.graph, hint, (size_hw, teacher.preprocessing.fixed_hw or size_hw)
            )

    def _new_adapter(
        self, own: nn.Module, taught: nn.Module, hint: tuple[str, str], sizes: Sequence[SizeHW]
    ) -> nn.Module:
        """Watch a layer of each network, and return what gives one's features as many channels as the other's."""
        for graph, name, key, size in ((own, hint[0], "own", sizes[0]), (taught, hint[1], "taught", sizes[1])):
            layers = dict(graph.network.named_modules())  # type: ignore[operator, union-attr]
            if not name or name not in layers:
                names = [each for each, layer in layers.items() if isinstance(layer, nn.Conv2d)]
                raise ConfigError(f"--hint: no layer {name!r}; the last convolutions are {', '.join(names[-3:])}")
            layers[name].register_forward_hook(lambda _, inputs, output, key=key: self._features.update({key: output}))
            with torch.no_grad():
                graph.eval()(torch.zeros(1, *size, 3, dtype=torch.uint8))
        found = [self._features[key].shape for key in ("own", "taught")]
        self._features.clear()  # an average of the weights begins with a copy of this, and results have none
        if any(len(shape) != 4 for shape in found):
            raise ConfigError(f"--hint: the layers give {[tuple(shape) for shape in found]}; expected feature maps")
        return nn.Conv2d(found[0][1], found[1][1], 1)

    def _hint_loss(self) -> Tensor:
        """Return how far the features are from the teacher's (Romero et al., 2015), at the smaller size of both."""
        own, taught = self._features["own"], self._features["taught"]
        size = (min(own.shape[2], taught.shape[2]), min(own.shape[3], taught.shape[3]))
        own, taught = (functional.adaptive_avg_pool2d(each, size) for each in (own, taught))
        assert self.adapter is not None
        return functional.mse_loss(self.adapter(own), taught) / taught.square().mean().clamp(min=1e-8)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits (N, C) of uint8 (N, H, W, 3)."""
        logits: Tensor = self._graph[0](pixels)["logits"]
        return logits

    def training_step(self, batch: Any, number: int) -> Tensor:
        teacher = self._teacher[0]
        if teacher is None:
            plain: Tensor = super().training_step(batch, number)
            return plain
        pixels, class_ids, for_teacher = batch
        logits = self(pixels)
        with torch.no_grad():
            taught = teacher.graph.to(pixels.device)(for_teacher)["logits"]
        loss: Tensor = (1 - TEACHER_SHARE) * self.compute_loss(logits, class_ids) + TEACHER_SHARE * distil_loss(
            logits, taught
        )
        if self.adapter is not None:
            loss = loss + HINT_SHARE * self._hint_loss()
        self.log("loss", loss, prog_bar=True, on_step=False, on_epoch=True, batch_size=len(pixels))
        return loss
