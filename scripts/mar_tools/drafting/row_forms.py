"""What the numbers of a row are: of heads that have chosen their boxes, and of those that give every cell's."""

import math
from collections.abc import Iterator, Mapping
from itertools import permutations
from typing import Any

from torch import Tensor

from mar_tools.drafting.drafts import assume
from mar_tools.drafting.score_forms import are_scores
from vision_serving.geometry import SizeHW
from vision_serving.graphs.outputs import ROW, RowPart

STRIDES = (8, 16, 32)
ANCHORS = 3  # boxes of a cell, in heads of YOLOv3 to v7
BOX = 4
LONGEST_ROW = BOX + 3  # of chosen boxes, without coefficients of masks
FEW_TIMES = 5.0
EMPTY = 0.1  # no class of a box with nothing in it has more, where no objectness says so

Order = tuple[RowPart, ...]


def count_cells(size_hw: SizeHW) -> int:
    return sum((size_hw[0] // stride) * (size_hw[1] // stride) for stride in STRIDES)


def find_order(rows: Tensor, size_hw: SizeHW) -> Order | None:
    """Return what rows (N, Q, 6 or 7) of chosen boxes have, in their order; None for rows of other kinds.

    A class is a whole number, a score is in [0, 1] and none. The order that is usual is preferred.
    """
    cells = count_cells(size_hw)
    if rows.shape[2] not in (BOX + 2, LONGEST_ROW) or rows.shape[1] in (cells, ANCHORS * cells):
        return None
    orders = [order for order in _orders(rows.shape[2] - BOX - 2) if _fits(rows, order)]
    best = max(orders, key=lambda order: len(set(take_part(rows, order, "class").flatten().tolist())), default=None)
    return None if best is None or _is_constant_and_unsorted(rows, best) else best


def _orders(skipped: int) -> Iterator[Order]:
    for order in permutations(ROW):
        if not skipped:
            yield order
            continue
        for place in (0, len(order), 1, 2):
            yield (*order[:place], "skip", *order[place:])


def take_part(rows: Tensor, order: Order, part: RowPart) -> Tensor:
    """Return the boxes (N, Q, 4), the scores (N, Q) or the classes (N, Q) of rows."""
    place = order.index(part)
    start = place + (BOX - 1 if "box" in order[:place] else 0)
    return rows[..., start : start + BOX] if part == "box" else rows[..., start]


def _fits(rows: Tensor, order: Order) -> bool:
    class_ids, scores = take_part(rows, order, "class"), take_part(rows, order, "score")
    told = scores > 0
    if not _are_whole(class_ids) or not bool(class_ids.min() >= -1) or not are_scores(scores.clamp(min=0)):
        return False
    return not bool(told.any()) or not _are_whole(scores[told])


def _are_whole(values: Tensor) -> bool:
    return bool((values == values.round()).all())


def _is_constant_and_unsorted(rows: Tensor, order: Order) -> bool:
    """Return whether it is a head of one class that gives every cell: a class score of 1, and boxes in no order."""
    class_ids = take_part(rows, order, "class")
    scores = take_part(rows, order, "score")
    return bool((class_ids == 1).all()) and bool((scores[:, 1:] > scores[:, :-1]).any())


def are_angles(values: Tensor) -> bool:
    """Return whether all are radians of turned boxes, which no score can be."""
    return bool(values.abs().max() <= math.pi) and not are_scores(values)


def find_prototypes(outputs: Mapping[str, Tensor]) -> str | None:
    """Return which value (N, P, H, W) is masks that the ends of rows mix; None where there is not just one."""
    found = [name for name, values in outputs.items() if values.dim() == 4]
    return found[0] if len(found) == 1 else None


def split_masks(
    outputs: Mapping[str, Tensor], name: str, rows: Tensor, prototypes: str | None
) -> tuple[dict[str, Any], Tensor]:
    """Return what `output` says of the coefficients of masks that end rows (N, Q, F), and the rows without them."""
    count = outputs[prototypes].shape[1] if prototypes else 0
    if prototypes is None or rows.shape[2] <= BOX + count:
        return {}, rows
    why = f"{prototypes!r} {tuple(outputs[prototypes].shape)} are masks, which {count} numbers of a row mix"
    names = {} if list(outputs) == [name, prototypes] else {"names": {"rows": name, "prototypes": prototypes}}
    return {"masks": assume(True, why), **names}, rows[..., :-count]


def find_objectness(rows: Tensor, columns: bool, size_hw: SizeHW) -> tuple[bool, str, str]:
    """Return whether rows (N, Q, 4 + ...) of every cell have an objectness, whose head it is, and why.

    Where they have one, the scores behind it are of the classes if there is an object, and so not small where none is.
    """
    count, cells = rows.shape[1], count_cells(size_hw)
    if rows.shape[2] == BOX + 1:
        return False, "YOLO", "one number follows the box"
    if count == ANCHORS * cells:
        return True, "YOLO", f"{count} boxes are three a cell, as YOLOv3 to v7 have them, with an objectness"
    if count == cells and columns:
        return False, "YOLO", f"{count} boxes are one a cell, in columns, as YOLOv8 and later have them, without one"
    if count == cells and bool(rows[..., 2:BOX].min() < 0) and are_scores(rows[..., BOX:]):
        return True, "YOLOX", f"{count} boxes are one a cell, in rows, with logarithms of sizes, as YOLOX has them"
    if not are_scores(rows[..., BOX:]):
        return not columns, "YOLO", "rows mostly have one, columns mostly none"
    first, best = float(rows[..., BOX].median()), float(rows[..., BOX + 1 :].amax(-1).median())
    has = best > max(EMPTY, FEW_TIMES * first)
    family = "YOLOX" if has and count == cells else "YOLO"
    return has, family, f"of most boxes the first score is {first:.2g}, and the best of the others {best:.2g}"
