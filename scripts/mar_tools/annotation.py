"""Draw an answer onto its picture: boxes with labels, or the best classes in a bar below."""

from typing import Any

import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#800000", "#808000", "#000075")
MIN_SIDE = 320  # smaller pictures are enlarged, so that the text on them can be read
WHITE = "white"
DARK = "#202020"


def annotate(image: PIL.Image.Image, answer: dict[str, Any]) -> PIL.Image.Image:
    """A new RGB picture. answer: one image's entry of the HTTP contract. image: upright, as the server saw it."""
    scale = max(1.0, MIN_SIDE / min(image.size))
    canvas = image.convert("RGB").resize((round(image.width * scale), round(image.height * scale)))
    font = PIL.ImageFont.load_default(size=max(14, min(canvas.size) // 28))
    if "detections" in answer:
        _draw_boxes(canvas, answer["detections"], scale, font)
        return canvas
    return _add_class_bar(canvas, answer["classes"], font)


def _draw_boxes(canvas: PIL.Image.Image, detections: list[dict[str, Any]], scale: float, font: Any) -> None:
    draw = PIL.ImageDraw.Draw(canvas)
    line_width = max(2, min(canvas.size) // 200)
    for detection in detections:
        colour = COLOURS[detection["class_id"] % len(COLOURS)]
        x1, y1, x2, y2 = (side * scale for side in detection["box"])
        draw.rectangle((x1, y1, max(x1, x2), max(y1, y2)), outline=colour, width=line_width)
        text = f"{detection['label']} {detection['score']:.2f}"
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
        width, height = right - left + 6, bottom - top + 6
        text_x = max(0, min(x1, canvas.width - width))
        text_y = y1 - height if y1 >= height else min(y1, canvas.height - height)
        draw.rectangle((text_x, text_y, text_x + width, text_y + height), fill=colour)
        draw.text((text_x + 3 - left, text_y + 3 - top), text, fill=WHITE, font=font)


def _add_class_bar(canvas: PIL.Image.Image, classes: list[dict[str, Any]], font: Any) -> PIL.Image.Image:
    line_height = round(font.size * 1.5)
    annotated = PIL.Image.new("RGB", (canvas.width, canvas.height + line_height * len(classes) + 8), WHITE)
    annotated.paste(canvas, (0, 0))
    draw = PIL.ImageDraw.Draw(annotated)
    for row, entry in enumerate(classes):
        top = canvas.height + 4 + row * line_height
        draw.rectangle((4, top, 4 + (canvas.width - 8) * entry["score"], top + line_height - 4), fill="#bcd7f5")
        draw.text((8, top), f"{entry['label']}  {entry['score']:.3f}", fill=DARK, font=font)
    return annotated
