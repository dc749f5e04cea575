"""Heat maps: as numbers over the source image, and drawn over it."""

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from vision_serving.explaining.attribution import Attribution
from vision_serving.geometry import ImageGeometry
from vision_serving.predictions import Explanation, HeatMap

OPACITY = 0.6
# matplotlib's `inferno` at ten even steps: black for nothing, through purple and orange to pale yellow.
INFERNO = np.array(
    [(0, 0, 4), (27, 12, 66), (75, 12, 107), (120, 28, 109), (165, 44, 96),
     (207, 68, 70), (237, 105, 37), (251, 154, 6), (247, 208, 60), (252, 255, 164)]
)  # fmt: skip


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


def draw_explanation(explanation: Explanation, picture: PIL.Image.Image, max_side: int) -> PIL.Image.Image:
    """Return the picture, no side longer than `max_side`, under the colours of what speaks for the class.

    picture: RGB, the upright source image, perhaps decoded at a part of its size.
    """
    scale = min(1.0, max_side / max(picture.size))
    canvas = picture.resize([max(1, round(side * scale)) for side in picture.size], reducing_gap=2.0)
    intensity = spread_intensity(explanation, canvas.size)
    colours = np.stack([np.interp(intensity, np.linspace(0, 1, len(INFERNO)), channel) for channel in INFERNO.T], -1)
    return PIL.Image.blend(canvas, PIL.Image.fromarray(colours.astype(np.uint8)), OPACITY)


def spread_intensity(explanation: Explanation, size: tuple[int, int]) -> NDArray[np.float32]:
    """Spread to (height, width) in [0, 1] over a picture of `size` (width, height): 1 where most speaks for the class.

    0 is what does not, what speaks against it, and what the model did not see.
    """
    heat_map = explanation.heat_map
    values = np.array(heat_map.values, dtype=np.float32).clip(min=0)
    cells = PIL.Image.fromarray(values / max(float(values.max()), np.finfo(np.float32).tiny))
    x1, y1, x2, y2 = heat_map.box
    cells_x, cells_y = heat_map.width / (x2 - x1), heat_map.height / (y2 - y1)  # cells in a source pixel
    step_x, step_y = cells_x * explanation.image.width / size[0], cells_y * explanation.image.height / size[1]
    placed = cells.transform(
        size,
        PIL.Image.Transform.AFFINE,
        (step_x, 0, -x1 * cells_x, 0, step_y, -y1 * cells_y),
        PIL.Image.Resampling.BILINEAR,
    )
    return np.asarray(placed)
