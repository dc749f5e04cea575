"""The golden prediction of an archive: a picture, the answer that it must get, and by how much an answer may differ.

    golden.png    the picture; lossless, so that every machine decodes it to the same pixels
    golden.json   options, answer and tolerances

Nothing here needs PyTorch: health_probe.py compares with it. `verification/golden_making.py` makes it.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mar_tools.archives.box_matching import find_unpaired, intersection_over_union
from vision_serving.errors import ConfigError
from vision_serving.predictions import Box
from vision_serving.validation import MOST_BYTES, StrictModel, parse_config, read_json

GOLDEN = "golden.json"
PICTURE = "golden.png"

# By how much a score may differ on another machine: half of what the verification allows between a precision and fp32
# (verification/bounds.py), for here both sides have the same artifact and differ by the rounding of their kernels
# alone. In fp32, where that is little, as much. A wrong artifact, preprocessing or class order is off by far more: the
# picture is one whose answer is clear.
SCORE_TOLERANCES = {"fp32": 0.01, "fp16": 0.015, "bf16": 0.05, "int8": 0.15}
# Least overlap with its partner of a box, which moves by rounding too.
LEAST_IOUS = {"fp32": 0.9, "fp16": 0.85, "bf16": 0.75, "int8": 0.7}


class GoldenEntry(StrictModel):
    """One class or one box of an answer; `box` is xyxy in pixels of the picture."""

    class_id: int
    score: float
    box: Box | None = None


class Golden(StrictModel):
    """The content of golden.json. found: best first; score_threshold: of the boxes, None for classes.

    embedding: in the place of both, of a length of 1.
    """

    options: dict[str, str]
    found: tuple[GoldenEntry, ...]
    embedding: tuple[float, ...] | None = None
    score_threshold: float | None = None
    score_tolerance: float
    least_iou: float

    def find_differences(self, answer: Mapping[str, Any]) -> list[str]:
        """Return what is wrong with the JSON body of an answer, nothing where it is right."""
        if self.embedding is not None:
            return self._compare_vectors(self.embedding, answer.get("embedding"))
        is_class = self.score_threshold is None
        kind, compare = ("classes", self._compare_classes) if is_class else ("detections", self._compare_boxes)
        keys = ("class_id", "score") if is_class else ("class_id", "score", "box")
        try:
            return list(compare([GoldenEntry(**{key: each[key] for key in keys}) for each in answer[kind]]))
        except (KeyError, TypeError, ValueError):
            return [f"expected {kind}, got {str(answer)[:200]}"]

    def _compare_vectors(self, expected: Sequence[float], found: Any) -> list[str]:
        """Return a problem where the angle between two vectors of length 1 is more than rounding makes it."""
        numbers = isinstance(found, list) and all(isinstance(value, int | float) for value in found)
        if not numbers or len(found) != len(expected):
            return [f"expected an embedding of {len(expected)} numbers, got {str(found)[:200]}"]
        cosine = sum(one * other for one, other in zip(expected, found, strict=True))
        least = 1 - self.score_tolerance / 5
        return [] if cosine >= least else [f"embedding: expected a cosine of at least {least:.3f}, got {cosine:.3f}"]

    def _compare_classes(self, found: Sequence[GoldenEntry]) -> Iterator[str]:
        """Yield a problem where a class that only one side names scores more on the other than the last one there."""
        sides = [{each.class_id: each.score for each in side} for side in (self.found, found)]
        least = [min(side.values(), default=0.0) for side in sides]
        for class_id in sorted(sides[0].keys() | sides[1].keys()):
            expected, got = (side.get(class_id) for side in sides)
            if expected is None or got is None:
                off = (got or 0.0) - least[0] if expected is None else expected - least[1]
            else:
                off = abs(expected - got)
            if off > self.score_tolerance:
                yield f"class {class_id}: expected a score of {_show(expected, least[0])}, got {_show(got, least[1])}"

    def _compare_boxes(self, found: Sequence[GoldenEntry]) -> Iterator[str]:
        """Yield a problem where a box that rounding cannot take below the threshold has no partner."""
        yield from (f"expected {_describe(box)}, got none such" for box in self._unpaired(self.found, found))
        yield from (f"got {_describe(box)}, which was not expected" for box in self._unpaired(found, self.found))

    def _unpaired(self, boxes: Sequence[GoldenEntry], others: Sequence[GoldenEntry]) -> list[GoldenEntry]:
        assert self.score_threshold is not None
        least = self.score_threshold + self.score_tolerance
        return find_unpaired([box for box in boxes if box.score >= least], others, self._are_partners, one_to_one=False)

    def _are_partners(self, one: GoldenEntry, other: GoldenEntry) -> bool:
        return (
            one.class_id == other.class_id
            and abs(one.score - other.score) <= self.score_tolerance
            and intersection_over_union(one.box, other.box) >= self.least_iou
        )


def read_golden(folder: Path) -> tuple[bytes, Golden] | None:
    """Read the picture of an extracted archive and its answer, None where it has none. Raises ConfigError."""
    path = folder / GOLDEN
    if not path.is_file():
        return None
    try:
        picture = (folder / PICTURE).read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: its picture cannot be read ({error})") from error
    return picture, parse_config(Golden, read_json(path, most_bytes=MOST_BYTES), str(path))


def _show(score: float | None, least: float) -> str:
    return f"at most {least:.3f}" if score is None else f"{score:.3f}"


def _describe(box: GoldenEntry) -> str:
    corners = ", ".join(f"{value:.0f}" for value in box.box or ())
    return f"a box of class {box.class_id} at ({corners}) with a score of {box.score:.3f}"
