"""docs/evidence/fidelity.md from lab/results/fidelity.json: the same figures give the same page."""

import re
from collections.abc import Sequence

from lab.fidelity.pictures import SIZES_HW
from lab.fidelity.results import AnswerDifference, Fidelity, Row
from lab.fidelity.subjects import READER, Library

TITLES: dict[Library, str] = {"torchvision": "torchvision", "timm": "timm", "huggingface": "transformers"}
ORDER_LEVELS = 8  # 224 x 224 of 640 x 200, and the like
LONG_NUMBER = re.compile(r"\d+\.\d{4,}")
INTRODUCTION = """# Fidelity

<!-- Written by lab/measure_fidelity.py from fidelity.json: change neither by hand. -->

Whether a served model sees the pixels, and gives the answers, that it saw and gave in the library that it comes from.
Measured by

    python lab/measure_fidelity.py

- **Theirs**: the library itself on the picture as Pillow opens it: `weights.transforms()`, a torchvision detector's own
  transform, `timm.data.create_transform`, an image processor of transformers; then the network, in PyTorch.
- **Ours**: the preprocessing that `preprocessing: auto` froze into the archive, run by the code of the server; then the
  archive on the backend `eager`. How far the other backends are from `eager` is what each build verifies.
- **Pictures**: photographs of scikit-image and scikit-learn at {sizes} sizes from {smallest} to {largest}, tall, wide,
  odd and tiny ones among them, as PNG, so that both sides see the same pixels, and one size as JPEG.
- **Networks** have random weights, settled on photographs. Where a model is slow, `{reader}` reads its pixels.

## What is promised

- `preprocessing: auto` takes size, crop and its rounding, interpolation, order of a resize's two passes, padding, mean,
  std and colour order from the checkpoint, or refuses to guess: it names the setting that it does not know.
- No value of any pixel is more than two levels of 255 from the library's, and at most one in 10,000 is more than one
  level away. `tests/lab/test_fidelity.py` fails where this is not so.
- The best class is the library's, for every picture here.
- Of equal pixels, the boxes are the library's to a hundredth of a pixel (`tests/contract/test_torchvision_agrees.py`).
  Detectors of transformers get equal pixels. torchvision's get pixels that are rounded to levels: all boxes of an
  untrained detector nearly tie, so that half a level decides which of them NMS keeps, and the share of boxes that are
  found again says little about a trained one.

{summary}
"""
EXPLANATIONS = """## Why not every pixel is equal

- **Weights of the resize.** torchvision and timm resize with Pillow, whose integer weights have 22 bits; the server
  resizes with PyTorch's kernel, which is faster, and whose weights have 16 bits. A few values in 1,000 round to the
  next level, and as there are two passes, a few in a million are two levels away.
- **transformers** resizes with PyTorch itself: the same kernel, the same pixels. With Lanczos, box and Hamming weights
  the server uses Pillow, and transformers PyTorch.
- **torchvision's detectors** resize in floats and do not round; ours are pixels of 8 bits, so up to half a level of
  rounding is in every value and does not count as another level here.
- **Padding** of transformers is 0 after normalising: the mean, which lies between two levels. At most half of one.

## What is taken over that is easily overlooked

- **Pillow 13 resizes the height first** where it loses more than twice the pixels that the width loses; Pillow 12 and
  PyTorch always begin with the width. With bicubic weights, what overshoots is cut off after the first pass: on tall
  pictures that makes up to {order_levels} levels of difference. `pass_order` in the archive (`pillow13`, or
  `horizontal_first`) says how Pillow did it where the model was built, so a server answers the same with any Pillow.
- **Half a pixel of a centre crop** goes up in torchvision and timm, and down in transformers (`crop_offset`).
- **Colour order**: MobileViT's image processor hands over blue first (`color_order: bgr`, applied inside the graph).
- **Padding**: at the bottom and right (`pad_size`, `pad_place: top_left`) for RT-DETR, D-FINE and YOLOS. Their boxes
  are relative to the padded picture, and come back in pixels of the picture that was sent. The networks of DETR,
  Conditional, Deformable and DAB-DETR, LW-DETR, RF-DETR and Table Transformer need a mask of the padding, which an
  archive does not have: their `pad_size` is refused. One picture alone needs none.
- **Resizing before the crop**: ConvNeXt squashes from 384 pixels on and crops below, PoolFormer divides by `crop_pct`,
  LeViT enlarges by 256/224, YOLOS cuts to multiples of 16.

## Known deviations

- `scaled_decoding: true` (off unless a recipe asks for it) decodes large JPEGs at a part of their size: a level or two.
- A strip so narrow that resizing it whole would take more than 16 million pixels is resized in its middle alone.
- The server turns a picture as its EXIF block says; the libraries take it as `PIL.Image.open` gives it.
- 16-bit and transparent pictures are brought to 8-bit RGB by the server's own rules.
- Image processors with steps of their own are refused: EfficientNet, Perceiver, Donut, PP-LCNet, ImageGPT, SigLIP 2,
  PP-OCR, TextNet. A recipe may state its own `preprocessing`.
"""
COLUMNS = """| model | preprocessing | other level | over one level | largest | best class or boxes | SNR, IoU | score |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""
LEGEND = """## Models

**other level**: share of the values (three a pixel) that are another level than the library's; **over one level**: more
than one away; **largest**: the largest difference in levels. Of the answers: share of the pictures whose best class is
the same, or of the library's and our boxes that have their partner, of how many; the least signal-to-noise ratio of the
logits, or the least overlap of such a pair; the largest difference of a class's probability, or of a pair's scores.
{star}
"""


def render_markdown(fidelity: Fidelity) -> str:
    areas = sorted(SIZES_HW, key=lambda size: size[0] * size[1])
    intro = INTRODUCTION.format(
        sizes=len(SIZES_HW) + 1,
        smallest=" x ".join(map(str, areas[0])),
        largest=" x ".join(map(str, areas[-1])),
        reader=READER,
        summary=summarise(fidelity.rows),
    )
    tables = [render_library(library, fidelity.rows) for library in TITLES]
    legend = LEGEND.format(star=f"`*`: `{READER}` answered in the model's place.")
    versions = ", ".join(f"{name} {number}" for name, number in fidelity.versions.items())
    made_on = f"## Made on\n\n{fidelity.date}, {fidelity.cpu}: {versions}\n"
    return "\n".join([intro, EXPLANATIONS.format(order_levels=ORDER_LEVELS), legend, *tables, made_on])


def summarise(rows: Sequence[Row]) -> str:
    lines = ["| library | models | no other level | within one | largest | same best class | boxes found again |"]
    lines.append("| --- | --- | --- | --- | --- | --- | --- |")
    for library, title in TITLES.items():
        of_library = [row for row in rows if row.library == library]
        if of_library:
            lines.append(f"| {title} | {len(of_library)} | {_summary_cells(of_library)} |")
    return "\n".join(lines)


def _summary_cells(rows: Sequence[Row]) -> str:
    equal = sum(row.pixels.other_level == 0 for row in rows)
    within_one = sum(row.pixels.beyond_one == 0 for row in rows)
    answers = [row.answers for row in rows if row.answers is not None]
    classes = [answer.same_best for answer in answers if answer.same_best is not None]
    boxes = [answer.matched_boxes for answer in answers if answer.matched_boxes is not None]
    cells = [
        f"of {equal} models",
        f"of {within_one}",
        f"{max(row.pixels.largest for row in rows):g}",
        percent(sum(classes) / len(classes)) if classes else "",
        percent(sum(boxes) / len(boxes)) if boxes else "",
    ]
    return " | ".join(cells)


def render_library(library: Library, rows: Sequence[Row]) -> str:
    lines = [render_row(row) for row in rows if row.library == library]
    return f"### {TITLES[library]}\n\n{COLUMNS}" + "".join(f"{line}\n" for line in lines) if lines else ""


def render_row(row: Row) -> str:
    pixels = row.pixels
    cells = [
        f"{row.model}{' `*`' if row.network else ''}",
        LONG_NUMBER.sub(lambda number: f"{float(number[0]):.4g}", row.settings),
        percent(pixels.other_level, 2),
        percent(pixels.beyond_one, 4) if pixels.beyond_one else "0",
        f"{pixels.largest:g}",
        *(["", "", ""] if row.answers is None else answer_cells(row.answers)),
    ]
    return "| " + " | ".join(cells) + " |"


def answer_cells(answers: AnswerDifference) -> list[str]:
    if answers.matched_boxes is None:
        cells = [f"{percent(answers.same_best or 0.0)} of {answers.pictures}", f"{answers.snr_db:.0f} dB"]
    else:
        cells = [f"{percent(answers.matched_boxes)} of {answers.compared_boxes} boxes", f"IoU {answers.least_iou:.3f}"]
    return [*cells, f"{answers.difference:.1g}" if answers.difference else "< 1e-6"]


def percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f}".rstrip("0").rstrip(".") + " %" if share else "0 %"
