"""Pictures as a network in training sees them: changed at random to train, prepared as the server does to be judged."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from torchvision.transforms import InterpolationMode, v2

from mar_tools.images import read_image
from mar_tools.training.folders import LabelledPicture
from vision_serving.config import ColourConfig, ImageLimits, PreprocessingConfig
from vision_serving.pictures.decoding import decode_image
from vision_serving.pictures.resizing import preprocess_images

Strength = Literal["none", "light", "standard"]
STRENGTHS: tuple[Strength, ...] = get_args(Strength)
LEAST_AREA = {"light": 0.5, "standard": 0.25}  # of a picture that a random cut keeps
ASPECTS = {"light": (0.9, 1.1), "standard": (3 / 4, 4 / 3)}
Change = Callable[[Tensor], Tensor]  # uint8 (3, H, W) of any size -> uint8 (3, h, w) of the model's


class PictureDataset(Dataset[tuple[Tensor, int]]):
    """uint8 RGB pixels (h, w, 3) at model size, and the class id.

    change: what is done to a decoded picture; None for what the server does to it. seed: of the changes, which are the
    same in every run, whatever process makes them. An index beyond the end is of the next epoch, see `EpochSampler`.
    colours: as a recipe states them.
    """

    def __init__(
        self,
        pictures: Sequence[LabelledPicture],
        preprocessing: PreprocessingConfig,
        change: Change | None = None,
        seed: int = 0,
        colours: ColourConfig | None = None,
    ) -> None:
        self.pictures = pictures
        self.preprocessing = preprocessing
        self.change = change
        self.seed = seed
        self.colours = colours

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        picture = self.pictures[index % len(self)]
        image = decode_image(read_image(picture.path), ImageLimits(), self.colours)
        if self.change is None:
            return preprocess_images([image], self.preprocessing).pixels[0], picture.class_id
        with seeded(self.seed, index):
            changed = self.change(torch.tensor(image).permute(2, 0, 1))
        return changed.permute(1, 2, 0).contiguous(), picture.class_id


class EpochSampler(Sampler[int]):
    """The places of a data set in an order of each epoch's own, plus its size for each epoch that went before.

    A training that goes on sees what one that was never interrupted sees. Lightning calls `set_epoch`.
    """

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed, self.epoch = count, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        order = torch.Generator().manual_seed(mix_seeds(self.seed, self.epoch))
        first = self.epoch * self.count
        return iter([first + place for place in torch.randperm(self.count, generator=order).tolist()])


def mix_seeds(*numbers: int) -> int:
    """Return one seed of several numbers, as far from its neighbours' as from any other's."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


@contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """Let torch draw what these numbers alone decide, and go on afterwards as if it had drawn nothing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix_seeds(*numbers))
        yield


def new_change(strength: Strength, flip: bool, preprocessing: PreprocessingConfig) -> Change | None:
    """Return random changes of a picture for training, as torchvision's own training does them.

    strength: none, light (cuts, a little colour), standard (smaller cuts, TrivialAugmentWide of Mueller and Hutter,
    2021). flip: whether left and right may change places, which digits and texts do not bear.
    """
    if strength == "none":
        return None
    size = preprocessing.fixed_hw
    assert size is not None
    steps: list[torch.nn.Module] = [
        v2.RandomResizedCrop(
            size,
            scale=(LEAST_AREA[strength], 1.0),
            ratio=ASPECTS[strength],
            interpolation=InterpolationMode(preprocessing.interpolation),
            antialias=preprocessing.antialias,
        )
    ]
    if flip:
        steps.append(v2.RandomHorizontalFlip())
    if strength == "standard":
        steps.append(v2.TrivialAugmentWide(interpolation=InterpolationMode.BILINEAR))
    else:
        steps.append(v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2))
    change: Change = v2.Compose(steps)
    return change
