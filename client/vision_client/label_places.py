"""What is written beside boxes, and where: so that no label covers another."""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

HEIGHT = 16
MARGIN = 4
GAP = 1
MOST_CHARACTERS = 32  # of a label without its score
SIZE = 12  # of the letters
# Widths in sizes of a letter, for lack of a font to ask. The SVG states them, so that letters take just this room.
NARROW, WIDE, CAPITAL, OTHER = 0.33, 0.92, 0.68, 0.58
DOUBLE = 1.0  # of East Asian letters
Rectangle = tuple[float, float, float, float]  # left, top, width, height
Size = tuple[float, float]


def clean(text: str, most: int = MOST_CHARACTERS) -> str:
    """Return one line that can be seen: no control characters, which XML refuses, and none that turns the direction."""
    line = "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text[: most + 1])
    return line if len(line) <= most else line[: most - 1] + "…"


@dataclass(frozen=True)
class Label:
    """A text in its frame. Widths are in units of the drawing."""

    text: str
    margin: float = MARGIN

    @property
    def width(self) -> float:
        return sum(map(_width, self.text)) * SIZE + 2 * self.margin


def place_labels(
    boxes: Sequence[Sequence[float]], labels: Sequence[Label], room: Size
) -> list[tuple[float, float] | None]:
    """Return left and top of each label, None where every place would cover the label of a better box.

    boxes: (x1, y1, x2, y2), best first. room: width and height of the picture.
    """
    taken: list[Rectangle] = []
    places: list[tuple[float, float] | None] = []
    for box, label in zip(boxes, labels):
        candidates = [_keep_inside(place, label.width, room) for place in _list_places(box, label.width)]
        frames = [(left, top, label.width, HEIGHT) for left, top in candidates]
        free = [frame for frame in frames if not any(_overlap(other, frame) for other in taken)]
        taken += free[:1]
        places.append(free[0][:2] if free else None)
    return places


def _list_places(box: Sequence[float], width: float) -> Iterator[tuple[float, float]]:
    """Yield places above, below, within and beside a box, best first."""
    x1, y1, x2, y2 = box
    for top in (y1 - HEIGHT, y2):
        yield from ((x1, top), (x2 - width, top))
    yield from ((x1, y1), (x2, y1), (x1 - width, y1), (x2, y2 - HEIGHT), (x1 - width, y2 - HEIGHT))
    yield from ((x1, y1 - 2 * HEIGHT - GAP), (x1, y2 + HEIGHT + GAP))


def _keep_inside(place: tuple[float, float], width: float, room: Size) -> tuple[float, float]:
    return max(0.0, min(place[0], room[0] - width)), max(0.0, min(place[1], room[1] - HEIGHT))


def _overlap(first: Rectangle, second: Rectangle) -> bool:
    across = first[0] < second[0] + second[2] + GAP and second[0] < first[0] + first[2] + GAP
    return across and first[1] < second[1] + second[3] and second[1] < first[1] + first[3]


def _width(character: str) -> float:
    if unicodedata.east_asian_width(character) in "WF":
        return DOUBLE
    if character in "iljtfrI.,:;|!'()[] ":
        return NARROW
    if character in "mwMW@%":
        return WIDE
    return CAPITAL if character.isupper() else OTHER
