"""A heat map drawn onto its picture, with a legend: red speaks for the class, blue against it."""

import numpy as np
import PIL.Image
import PIL.ImageDraw
from numpy.typing import NDArray

from vision_serving.answers.drawing import DARK, WHITE, Canvas, new_canvas
from vision_serving.answers.label_placement import fit_text, spell
from vision_serving.predictions import Explanation

FOR, AGAINST, NEITHER = (178, 24, 43), (33, 102, 172), (247, 247, 247)  # of ColorBrewer's RdBu, which anyone can tell
OPACITY = 0.8  # of the largest value
LIGHTENED = 0.5  # the grays of the picture: colours are told apart on black, too
UNSIGNED = ("saliency",)  # methods that do not tell for from against


def draw_explanation(image: PIL.Image.Image, explanation: Explanation) -> PIL.Image.Image:
    """Return the picture in gray under the colours of the map, at the size that `draw_prediction` draws, and a legend.

    image: RGB, upright; it may be smaller than its source, of which the explanation knows the size.
    """
    canvas = new_canvas(image)
    region = (0, 0, *canvas.picture_size)
    grays = np.asarray(canvas.image.crop(region).convert("L"), dtype=np.float32)[..., None]
    largest = _find_largest(explanation)
    drawn = _paint(grays + (255 - grays) * LIGHTENED, spread_values(explanation, canvas.picture_size, largest))
    canvas.image.paste(drawn, region)
    return _add_legend(canvas, explanation, largest)


def spread_values(explanation: Explanation, size: tuple[int, int], largest: float) -> NDArray[np.float32]:
    """Spread to (height, width) over a picture of `size` (width, height), in shares of `largest`: -1 to 1.

    0 is what the model did not see, too.
    """
    heat_map = explanation.heat_map
    cells = PIL.Image.fromarray(np.array(heat_map.values, dtype=np.float32) / np.float32(largest or 1))
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


def _find_largest(explanation: Explanation) -> float:
    """Return the largest value of the map, whatever its sign."""
    return max(abs(value) for row in explanation.heat_map.values for value in row)


def _paint(ground: NDArray[np.float32], shares: NDArray[np.float32]) -> PIL.Image.Image:
    colours = np.where(shares[..., None] > 0, np.array(FOR, np.float32), np.array(AGAINST, np.float32))
    painted = ground + (colours - ground) * (OPACITY * np.abs(shares[..., None]))
    return PIL.Image.fromarray(painted.astype(np.uint8))


def _add_legend(canvas: Canvas, explanation: Explanation, largest: float) -> PIL.Image.Image:
    """Return the picture with label, score and method below it, and the scale of the colours."""
    (width, top), row = canvas.image.size, canvas.line_height + canvas.padding
    picture = PIL.Image.new("RGB", (width, top + 3 * row + 2 * canvas.padding), WHITE)
    picture.paste(canvas.image)
    left, right, top = 2 * canvas.padding, width - 2 * canvas.padding, top + canvas.padding
    score = f"  {explanation.score:.3f}  {explanation.method.replace('_', ' ')}"
    label = spell(explanation.label) or f"class {explanation.class_id}"
    draw = PIL.ImageDraw.Draw(picture)
    draw.text((right, top), score, DARK, canvas.font, "ra")
    draw.text(
        (left, top), fit_text(label, canvas.font, right - left - draw.textlength(score, canvas.font)), DARK, canvas.font
    )
    lowest = 0 if explanation.method in UNSIGNED else -1
    if largest == 0:
        draw.text((left, top + row), "All values are 0: no part matters", DARK, canvas.font)
        return picture
    scale = np.broadcast_to(np.linspace(lowest, 1, right - left, dtype=np.float32), (canvas.line_height, right - left))
    picture.paste(_paint(np.full((1, 1, 3), NEITHER, np.float32), scale), (left, top + row))
    for x, anchor, text in zip(
        (left, (left + right) / 2, right), ("la", "ma", "ra"), _name_ends(largest, lowest), strict=True
    ):
        draw.text((x, top + 2 * row), text, DARK, canvas.font, anchor)
    return picture


def _name_ends(largest: float, lowest: int) -> tuple[str, str, str]:
    """Return what stands below the scale: left, in the middle, right."""
    if lowest == 0:
        return "0", "", f"matters {largest:.2g}"
    return f"{-largest:.2g} against", "0", f"for +{largest:.2g}"
