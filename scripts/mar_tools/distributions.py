"""How scores, classes, sizes and formats are distributed over images, in fixed bins: of a verification, and of traffic.

Each image counts 1, however many detections it has: they share it. So a picture of a crowd weighs no more than others.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Histogram = Mapping[str, float]  # a bin to its images, without those that have none

NOTHING = "nothing"  # where an image has no detection or label
# Upper ends. Most scores of a good model are near 1.
SCORE_BINS = (0.2, 0.4, 0.6, 0.8, 0.9, 0.94, 0.96, 0.98, 0.99, 1.0)
SIDE_BINS = (64, 128, 256, 512, 1024, 2048, 4096)  # upper ends, in pixels of the longer side
COUNT_BINS = (0, 1, 2, 4, 8, 16)  # upper ends, of detections
DIGITS = 4  # after the point, of a histogram that is stored
PARTS = ("scores", "classes", "counts", "sizes", "formats")


@dataclass(frozen=True)
class SeenImage:
    """What is known of an image and its answer.

    scores: (class id, score) of what is answered, best first; None where an answer has none. detections: how many, None
    for a model that finds none. longest_side: in pixels.
    """

    scores: Sequence[tuple[int, float]] | None = None
    detections: int | None = None
    longest_side: int | None = None
    format: str | None = None


@dataclass(frozen=True)
class Distributions:
    """images: how many. parts: a histogram for each of PARTS that there is something to say of."""

    images: int
    parts: Mapping[str, Histogram]

    def to_json(self) -> dict[str, Any]:
        """Return it as an archive stores it."""
        rounded = {name: {key: round(value, DIGITS) for key, value in own.items()} for name, own in self.parts.items()}
        return {"images": self.images, **rounded}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Distributions":
        """Raises KeyError, TypeError or ValueError for what is none."""
        parts = {
            name: {str(key): float(value) for key, value in document[name].items()}
            for name in PARTS
            if name in document
        }
        return cls(int(document["images"]), parts)


def name_bins(part: str) -> list[str]:
    """Return the bins of a part in order; none for classes and formats, which have their own names."""
    ends: dict[str, Sequence[float]] = {"scores": SCORE_BINS, "sizes": SIDE_BINS, "counts": COUNT_BINS}
    if part not in ends:
        return []
    names = [name_bin(part, end) for end in ends[part]]
    if part == "scores":
        return [NOTHING, *names]
    return [*names, name_bin(part, ends[part][-1] + 1)]


def name_bin(part: str, value: float) -> str:
    """Return the bin of a score, a side in pixels or a number of detections, by its ends."""
    if part == "scores":
        place = next((number for number, end in enumerate(SCORE_BINS) if value <= end), len(SCORE_BINS) - 1)
        return f"{SCORE_BINS[place - 1] if place else 0:g}-{SCORE_BINS[place]:g}"
    bins: Sequence[int] = SIDE_BINS if part == "sizes" else COUNT_BINS
    place = next((number for number, end in enumerate(bins) if value <= end), len(bins))
    if place == len(bins):
        return f"{bins[-1] + 1}+"
    low = bins[place - 1] + 1 if place else 0
    return f"{bins[place]}" if low == bins[place] else f"{low}-{bins[place]}"


def count_images(images: Iterable[SeenImage]) -> Distributions:
    """Return how images are distributed."""
    total = 0
    parts: dict[str, defaultdict[str, float]] = {name: defaultdict(float) for name in PARTS}
    for image in images:
        total += 1
        if image.scores is not None:
            shares = image.scores or [(-1, 0.0)]
            for class_id, score in shares:
                parts["scores"][name_bin("scores", score) if image.scores else NOTHING] += 1 / len(shares)
                parts["classes"][str(class_id) if image.scores else NOTHING] += 1 / len(shares)
        if image.detections is not None:
            parts["counts"][name_bin("counts", image.detections)] += 1
        if image.longest_side is not None:
            parts["sizes"][name_bin("sizes", image.longest_side)] += 1
        if image.format is not None:
            parts["formats"][image.format] += 1
    return Distributions(total, {name: dict(found) for name, found in parts.items() if found})
