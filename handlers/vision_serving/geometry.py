"""Where an image lies in the pixels that a model sees."""

from dataclasses import dataclass, replace

from torch import Tensor

SizeHW = tuple[int, int]


Region = tuple[int, int, int, int]


@dataclass(frozen=True)
class ImageGeometry:
    """Where a source image, or a region of it, lies in model pixels: model = (source - corner) * scale + offset.

    Per axis (y, x). region: (x1, y1, x2, y2) in pixels of the source image; its corner is (y1, x1). None: all of it.
    model_hw: the size that the model sees, padding included.
    """

    source_hw: SizeHW
    scale_hw: tuple[float, float]
    offset_hw: tuple[float, float]
    region: Region | None = None
    model_hw: SizeHW | None = None

    @property
    def seen(self) -> Region:
        """Return what the model sees of the source image."""
        return self.region or (0, 0, self.source_hw[1], self.source_hw[0])

    def of_source(self, source_hw: SizeHW) -> "ImageGeometry":
        """Return the same place of an image that is so large, of which this one is a smaller copy."""
        scale_y, scale_x = (
            scale * own / full for scale, own, full in zip(self.scale_hw, self.source_hw, source_hw, strict=True)
        )
        return replace(self, source_hw=source_hw, scale_hw=(scale_y, scale_x), region=None)

    def to_source(self, boxes_xyxy: Tensor) -> Tensor:
        """Return boxes (N, 4) from model pixels to pixels of the source image, clipped to what the model sees of it."""
        (scale_y, scale_x), (offset_y, offset_x) = self.scale_hw, self.offset_hw
        x1, y1, x2, y2 = self.seen
        offsets = boxes_xyxy.new_tensor([offset_x, offset_y, offset_x, offset_y])
        scales = boxes_xyxy.new_tensor([scale_x, scale_y, scale_x, scale_y])
        limits = boxes_xyxy.new_tensor([x2 - x1, y2 - y1, x2 - x1, y2 - y1])
        return ((boxes_xyxy - offsets) / scales).clamp(min=0).minimum(limits) + boxes_xyxy.new_tensor([x1, y1, x1, y1])
