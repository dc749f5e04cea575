"""Which pixels speak for a class: methods that ask a model about variants of one image.

    occlusion             hide one part after the other; any backend can
    integrated_gradients  add up gradients on the way from the baseline to the image (Sundararajan et al., 2017)
    saliency              the size of the gradient at the image (Simonyan et al., 2013)

All speak of the class's logit. The baseline, what a hidden part becomes, is the mean colour of the image: one that is
strange to it would be a thing of its own, which the model sees. Gradients are Captum's work, which is imported when
they are first asked for.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from vision_serving.config import RGB
from vision_serving.errors import NotSupportedError, how_to_install
from vision_serving.geometry import ImageGeometry
from vision_serving.options import ExplanationOptions, Method
from vision_serving.predictions import HeatMap

BATCH = 8  # variants that run at once, after each of which the time is looked at
MAX_SIDE = 64  # cells of a map of gradients

Logits = Callable[[Tensor], Tensor]  # pixels (N, H, W, 3) -> (N, C)


@dataclass(frozen=True)
class ExplainedImage:
    """What is explained: one class of one image.

    pixels     uint8 (1, H, W, 3)
    baseline   RGB in 0..255
    infer      of uint8 pixels, as they are served; differentiate: of float pixels in 0..255, with gradients
    """

    pixels: Tensor
    class_id: int
    baseline: RGB
    infer: Logits
    differentiate: Logits


@dataclass(frozen=True)
class Attribution:
    """values: (h, w), cell by cell; a cell is that many model pixels high and wide, and the last may reach beyond."""

    values: Tensor
    cell_hw: tuple[int, int]


def attribute(image: ExplainedImage, options: ExplanationOptions) -> Attribution:
    """Attribute by the method that was asked for. Raises NotSupportedError where it needs what is not installed."""
    return METHODS[options.method](image, options)


def occlude(image: ExplainedImage, options: ExplanationOptions) -> Attribution:
    """Measure how much the logit falls when a window of 2 x 2 cells is hidden: the mean of each cell's windows."""
    _, height, width, _ = image.pixels.shape
    cell_hw = (math.ceil(height / options.cells), math.ceil(width / options.cells))
    rows, columns = math.ceil(height / cell_hw[0]), math.ceil(width / cell_hw[1])
    windows = [
        (slice(max(0, row - 1) * cell_hw[0], (row + 1) * cell_hw[0]),
         slice(max(0, column - 1) * cell_hw[1], (column + 1) * cell_hw[1]))
        for row in range(rows + 1)
        for column in range(columns + 1)
    ]  # fmt: skip
    whole = image.infer(image.pixels)[0, image.class_id].float()
    hidden = torch.cat([_hide(image, windows[start : start + BATCH]) for start in range(0, len(windows), BATCH)])
    falls = (whole - hidden).reshape(1, rows + 1, columns + 1)
    return Attribution(functional.avg_pool2d(falls, 2, stride=1)[0], cell_hw)


def _hide(image: ExplainedImage, windows: list[tuple[slice, slice]]) -> Tensor:
    """Return the logits (N,) of as many variants, each with one window in the colour of the baseline."""
    variants = image.pixels.repeat(len(windows), 1, 1, 1)
    colour = torch.tensor(image.baseline).round().to(torch.uint8)
    for variant, window in zip(variants, windows, strict=True):
        variant[window] = colour
    return image.infer(variants)[:, image.class_id].float()


def integrate_gradients(image: ExplainedImage, options: ExplanationOptions) -> Attribution:
    """Integrate gradients: cells add up to the image's logit less the baseline's, as closely as `steps` allow."""
    gradients = _import_captum().IntegratedGradients(image.differentiate)
    baseline = torch.tensor(image.baseline).expand(image.pixels.shape)
    found = gradients.attribute(
        image.pixels.float(), baseline, image.class_id, n_steps=options.steps, internal_batch_size=BATCH
    )
    return sum_cells(found[0].sum(dim=-1))


def find_saliency(image: ExplainedImage, _: ExplanationOptions) -> Attribution:
    """Return the largest gradient of the three channels, whatever its sign."""
    found = (
        _import_captum().Saliency(image.differentiate).attribute(image.pixels.float().requires_grad_(), image.class_id)
    )
    return sum_cells(found[0].amax(dim=-1))


METHODS: dict[Method, Callable[[ExplainedImage, ExplanationOptions], Attribution]] = {
    "occlusion": occlude,
    "integrated_gradients": integrate_gradients,
    "saliency": find_saliency,
}


def sum_cells(values: Tensor) -> Attribution:
    """Return pixels (H, W) added up in square cells, the smallest that make no side longer than MAX_SIDE."""
    height, width = values.shape
    cell = math.ceil(max(height, width) / MAX_SIDE)
    padded = functional.pad(values.detach().float().cpu(), (0, -width % cell, 0, -height % cell))
    return Attribution(functional.avg_pool2d(padded[None], cell)[0] * cell**2, (cell, cell))


def to_heat_map(attribution: Attribution, geometry: ImageGeometry) -> HeatMap:
    """Return the cells with six digits that count, and where they lie in the upright source image."""
    height, width = attribution.values.shape
    (scale_y, scale_x), (offset_y, offset_x) = geometry.scale_hw, geometry.offset_hw
    cell_height, cell_width = attribution.cell_hw
    box = (
        -offset_x / scale_x,
        -offset_y / scale_y,
        (width * cell_width - offset_x) / scale_x,
        (height * cell_height - offset_y) / scale_y,
    )
    x1, y1, x2, y2 = (round(edge, 2) + 0.0 for edge in box)  # + 0.0: no -0.0
    values = tuple(tuple(float(f"{value:.6g}") for value in row) for row in attribution.values.tolist())
    return HeatMap(height=height, width=width, box=(x1, y1, x2, y2), values=values)


def _import_captum() -> Any:
    try:
        import captum.attr
    except ModuleNotFoundError as error:
        raise NotSupportedError(
            f"methods with gradients need {how_to_install(error)}, on the server; method=occlusion needs nothing"
        ) from error
    return captum.attr
