"""Pictures as a network in training sees them: changed at random to train, prepared as the server does to be judged."""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import InterpolationMode, v2

from mar_tools.images import read_image
from mar_tools.training.folders import LabelledPicture
from vision_serving.config import ImageLimits, PreprocessingConfig
from vision_serving.pictures.decoding import decode_image
from vision_serving.pictures.resizing import preprocess_images

Strength = Literal["none", "light", "standard"]
STRENGTHS: tuple[Strength, ...] = get_args(Strength)
LEAST_AREA = {"light": 0.5, "standard": 0.25}  # of a picture that a random cut keeps
ASPECTS = {"light": (0.9, 1.1), "standard": (3 / 4, 4 / 3)}
Change = Callable[[Tensor], Tensor]  # uint8 (3, H, W) of any size -> uint8 (3, h, w) of the model's


class PictureDataset(Dataset[tuple[Tensor, int]]):
    """uint8 RGB pixels (h, w, 3) at model size, and the class id.

    change: what is done to a decoded picture; None for what the server does to it.
    """

    def __init__(
        self, pictures: Sequence[LabelledPicture], preprocessing: PreprocessingConfig, change: Change | None = None
    ) -> None:
        self.pictures = pictures
        self.preprocessing = preprocessing
        self.change = change

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        picture = self.pictures[index]
        image = decode_image(read_image(picture.path), ImageLimits())
        if self.change is None:
            return preprocess_images([image], self.preprocessing).pixels[0], picture.class_id
        return self.change(torch.tensor(image).permute(2, 0, 1)).permute(1, 2, 0).contiguous(), picture.class_id


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
