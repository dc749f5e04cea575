"""What some detectors take beside the images: a pair of numbers for each, which their own decoding multiplies boxes by.

Told the size of the model's pixels, they give boxes in these.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor

from vision_serving.errors import ConfigError
from vision_serving.geometry import SizeHW

SizeInput = Literal["width_height", "height_width", "ones"]
NO_INPUTS: Mapping[str, SizeInput] = MappingProxyType({})
# Under these names exporters have them: RT-DETR and D-FINE, PaddleDetection, the YOLOv3 of the ONNX zoo.
KNOWN_INPUTS: Mapping[str, SizeInput] = {
    "orig_target_sizes": "width_height",
    "im_shape": "height_width",
    "image_shape": "height_width",
    "scale_factor": "ones",
}


def make_size(kind: SizeInput, images: Tensor, size_hw: SizeHW, dtype: torch.dtype = torch.int64) -> Tensor:
    """Return (N, 2) of numbers for images (N, ...)."""
    height, width = size_hw
    pair = {"width_height": (width, height), "height_width": (height, width), "ones": (1, 1)}[kind]
    numbers = [torch.as_tensor(number, dtype=dtype, device=images.device) for number in pair]
    return torch.stack(numbers).expand(images.shape[0], 2)


def name_size_inputs(
    found: Mapping[str, list[Any]], stated: Mapping[str, SizeInput], where: str
) -> dict[str, SizeInput]:
    """Return what a file takes beside its images, in its order: as stated, else by a known name.

    found: their shapes. Raises ConfigError for others, and for stated ones that are not there.
    """
    kinds = {name: stated.get(name, KNOWN_INPUTS.get(name)) for name in found}
    unknown = [name for name, kind in kinds.items() if kind is None or len(found[name]) != 2]
    if unknown:
        raise ConfigError(
            f"{where}: expected one input, an image; it also takes {unknown[0]!r} {found[unknown[0]]}. Where that is a "
            f"size (N, 2), say so under `model`: `inputs: {{{unknown[0]}: width_height}}` (or height_width, ones)"
        )
    strays = sorted(set(stated) - set(found))
    if strays:
        raise ConfigError(f"{where}: `inputs` names {strays}; beside the image the file takes {sorted(found)}")
    return {name: kind for name, kind in kinds.items() if kind is not None}
