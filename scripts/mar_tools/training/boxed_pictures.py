"""Pictures with boxes as a detector in training sees them: changed at random, boxes with them, then as served."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2
from torchvision.tv_tensors import BoundingBoxes, BoundingBoxFormat
from torchvision.tv_tensors import Image as ImageTensor

from mar_tools.images import read_image
from mar_tools.training.annotated import AnnotatedPicture
from mar_tools.training.pictures import Strength, seeded
from vision_serving.config import ImageLimits, PreprocessingConfig
from vision_serving.geometry import ImageGeometry
from vision_serving.pictures.decoding import decode_image
from vision_serving.pictures.resizing import preprocess_images

LEAST_SIDE = 2.0  # model pixels: what a cut leaves of a smaller box teaches nothing
GREY = 114  # around a picture that is made smaller, as of a letterbox
BoxChange = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class Example:
    """pixels: uint8 (H, W, 3) of the model's size. boxes: (M, 4) xyxy in these. class_ids, crowds: (M,).

    geometry: where the picture lies in the pixels.
    """

    pixels: Tensor
    boxes: Tensor
    class_ids: Tensor
    crowds: Tensor
    geometry: ImageGeometry


class BoxedDataset(Dataset[Example]):
    """One example a picture. change, seed: as of `PictureDataset`; to train, crowds are left out.

    first_class: 1 where the network's class 0 is the background.
    """

    def __init__(
        self,
        pictures: Sequence[AnnotatedPicture],
        preprocessing: PreprocessingConfig,
        first_class: int,
        change: BoxChange | None = None,
        seed: int = 0,
        trains: bool = False,
    ) -> None:
        self.pictures, self.preprocessing, self.first_class = pictures, preprocessing, first_class
        self.change, self.seed, self.trains = change, seed, trains

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Example:
        picture = self.pictures[index % len(self)]
        image = decode_image(read_image(picture.path), ImageLimits())
        kept = [box for box in picture.boxes if not (self.trains and box.is_crowd)]
        boxes = torch.tensor([box.xyxy for box in kept], dtype=torch.float32).reshape(-1, 4)
        class_ids = torch.tensor([box.class_id + self.first_class for box in kept], dtype=torch.int64)
        crowds = torch.tensor([box.is_crowd for box in kept], dtype=torch.int64)
        if self.change is not None:
            with seeded(self.seed, index):
                image, boxes, class_ids = change_picture(image, boxes, class_ids, self.change)
            crowds = torch.zeros_like(class_ids)
        batch = preprocess_images([image], self.preprocessing)
        geometry = batch.geometries[0]
        boxes = to_model(boxes, geometry)
        if self.trains:
            large = ((boxes[:, 2:] - boxes[:, :2]) >= LEAST_SIDE).all(dim=1)
            boxes, class_ids, crowds = boxes[large], class_ids[large], crowds[large]
        return Example(batch.pixels[0], boxes, class_ids, crowds, geometry)


def change_picture(image: Any, boxes: Tensor, class_ids: Tensor, change: BoxChange) -> tuple[Any, Tensor, Tensor]:
    """Return a changed picture, uint8 (H, W, 3), with the boxes (M, 4) xyxy that are left in it."""
    size_hw = (image.shape[0], image.shape[1])
    sample = {
        "image": ImageTensor(torch.tensor(image).permute(2, 0, 1)),
        "boxes": BoundingBoxes(boxes, format=BoundingBoxFormat.XYXY, canvas_size=size_hw),  # type: ignore[call-arg]
        "labels": class_ids,
    }
    changed = change(sample)
    pixels = changed["image"].as_subclass(Tensor).permute(1, 2, 0).contiguous().numpy()
    return pixels, changed["boxes"].as_subclass(Tensor).reshape(-1, 4), changed["labels"]


def to_model(boxes: Tensor, geometry: ImageGeometry) -> Tensor:
    """Return boxes (M, 4) xyxy of the source in model pixels, cut where those end."""
    (scale_y, scale_x), (offset_y, offset_x) = geometry.scale_hw, geometry.offset_hw
    assert geometry.model_hw is not None
    height, width = geometry.model_hw
    moved = boxes * boxes.new_tensor([scale_x, scale_y] * 2) + boxes.new_tensor([offset_x, offset_y] * 2)
    return moved.clamp(min=0).minimum(moved.new_tensor([width, height] * 2))


def new_box_change(strength: Strength, flip: bool) -> BoxChange | None:
    """Return random changes of a picture and its boxes, as torchvision's own training of SSD does them.

    strength: none, light (colours, a flip), standard (stronger colours, smaller on grey, cuts around boxes). flip:
    whether left and right may change places.
    """
    if strength == "none":
        return None
    colours = v2.RandomPhotometricDistort(p=0.5) if strength == "standard" else v2.ColorJitter(0.2, 0.2, 0.2)
    steps: list[torch.nn.Module] = [colours]
    if strength == "standard":
        steps.append(v2.RandomZoomOut(fill=GREY, side_range=(1.0, 2.0), p=0.3))
        steps.append(CutAroundBoxes())
    if flip:
        steps.append(v2.RandomHorizontalFlip())
    change: BoxChange = v2.Compose([*steps, v2.SanitizeBoundingBoxes(min_size=1.0, labels_getter=find_labels)])
    return change


class CutAroundBoxes(torch.nn.Module):
    """torchvision's random cut of SSD, of pictures that have boxes: without any it would look for a cut for long."""

    def __init__(self) -> None:
        super().__init__()
        self._cut = v2.RandomIoUCrop()

    def forward(self, sample: dict[str, Any]) -> dict[str, Any]:
        cut: dict[str, Any] = self._cut(sample) if len(sample["boxes"]) else sample
        return cut


def find_labels(sample: dict[str, Any]) -> Tensor:
    """Return what goes with the boxes of a sample."""
    labels: Tensor = sample["labels"]
    return labels


def collate_examples(examples: list[Example]) -> list[Example]:
    """Leave a batch as it is: pictures may be of several sizes."""
    return examples
