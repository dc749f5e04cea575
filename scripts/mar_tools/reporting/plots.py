"""Where the points, lines and words of a plot are, in units of its viewBox; the template writes them as SVG."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mar_tools.building.candidates import Candidate
from mar_tools.building.table import ACCURACY
from mar_tools.reporting.by_class import ByClass, ClassFigures
from mar_tools.reporting.evidence import Evidence
from vision_serving.answers.label_placement import place_labels

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 24, 52
CHARACTER, LINE = 8, 16  # of a label's font, about
RADIUS = 7
TICKS = 5
LEAST_SPAN = 0.02  # of an accuracy: differences below look like what they are
LOG_FROM = 5.0  # times between the slowest and the fastest
CURVE_WIDTH, CURVE_HEIGHT = 180, 120

Tick = tuple[float, str]


@dataclass(frozen=True)
class Point:
    """One candidate. x, y: its centre. label_x, label_y: the left end of its name's baseline."""

    name: str
    verdict: str
    text: str
    x: float
    y: float
    label_x: float = 0.0
    label_y: float = 0.0


@dataclass(frozen=True)
class Scatter:
    """Speed to the right, accuracy upwards. bound: what an accuracy has to reach, as a height and in words."""

    points: Sequence[Point]
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    x_title: str
    y_title: str
    bound: Tick | None = None
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


@dataclass(frozen=True)
class Axis:
    """Values to places. low, high: the values at start and end."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def place(self, value: float) -> float:
        low, high, value = (math.log(v) if self.is_log else v for v in (self.low, self.high, value))
        share = min(1.0, max(0.0, (value - low) / (high - low)))
        return round(self.start + share * (self.end - self.start), 1)


def plot_speed_and_accuracy(evidence: Evidence) -> Scatter | None:
    """Plot the candidates that were timed; None where there are none. Without a truth, the SNR stands for accuracy."""
    name = evidence.measure if any(row.accuracy for row in evidence.rows) else None
    measure: Callable[[Candidate], float | None]
    measure = (lambda row: (row.accuracy or {}).get(name)) if name else (lambda row: row.measured.get("snr_db"))
    timed = [(row, row.rate, value) for row in evidence.rows if row.rate and (value := measure(row)) is not None]
    if not timed:
        return None
    rates, values = [rate for _, rate, _ in timed], [value for _, _, value in timed]
    least = _find_bound(evidence, name) if name else None
    is_log = max(rates) > LOG_FROM * min(rates)
    x = Axis(min(rates) / 1.25 if is_log else 0.0, max(rates) * 1.25, LEFT, WIDTH - RIGHT, is_log)
    low, high = _widen(values if least is None else [*values, least], LEAST_SPAN if name else 10.0)
    y = Axis(max(low, 0.0), min(high, 1.0) if name else high, HEIGHT - BOTTOM, TOP)
    points = [
        Point(row.name, row.verdict, f"{rate:.4g} images/s, {value:.4g}", x.place(rate), y.place(value))
        for row, rate, value in timed
    ]
    # One that was rejected was not timed: it stands on the axis, at the bottom where its accuracy is lower still.
    rejected = [(row, value) for row in evidence.rows if not row.rate and (value := measure(row)) is not None]
    points += [
        Point(f"{row.name}: {value:.3g}", row.verdict, f"{row.verdict}, {value:.4g}", LEFT, y.place(value))
        for row, value in rejected
    ]
    batch = max((int(size) for row, _, _ in timed for size in row.images_per_s), default=1)
    return Scatter(
        points=_place_names(points),
        x_ticks=[(x.place(value), text) for value, text in (_round_numbers if is_log else _even_ticks)(x.low, x.high)],
        y_ticks=[(y.place(value), text) for value, text in _even_ticks(y.low, y.high)],
        x_title=f"images per second, batch {batch}{', on a logarithmic scale' * is_log}",
        y_title=" ".join(ACCURACY[name].split()) if name else "SNR beside eager fp32, dB",
        bound=None if least is None else (y.place(least), f"least accepted: {least:.3f}"),
    )


def _find_bound(evidence: Evidence, name: str) -> float | None:
    """Return the accuracy from which `max_accuracy_drop` refuses a candidate."""
    report = evidence.main.report
    drop = report.get("bounds", {}).get("max_accuracy_drop")
    accuracy = (report.get("accuracy") or {}).get("reference", {}).get(name)
    return None if drop is None or accuracy is None else max(0.0, accuracy - drop)


def _widen(values: Sequence[float], least_span: float) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = max(0.12 * (high - low), (least_span - (high - low)) / 2)
    return low - margin, high + margin


def _round_numbers(low: float, high: float) -> list[tuple[float, str]]:
    """Return 1, 2, 5, 10, 20 ... between, and how they are written."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    numbers = [step * 10.0**power for power in range(first, last + 1) for step in (1, 2, 5)]
    return [(number, f"{number:g}") for number in numbers if low <= number <= high]


def _even_ticks(low: float, high: float) -> list[tuple[float, str]]:
    rough = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    digits = max(0, -math.floor(math.log10(step)))
    first = math.ceil(low / step - 1e-9)
    values = [step * number for number in range(first, math.floor(high / step + 1e-9) + 1)]
    return [(value, f"{value:.{digits}f}") for value in values]


def _place_names(points: Sequence[Point]) -> list[Point]:
    """Put each name above, below or beside its point, right of the axis, where it covers the least of earlier names."""
    order = sorted(points, key=lambda point: point.verdict != "chosen")  # whose name has the first choice
    reach = RADIUS + 2
    boxes = [(int(p.x) - LEFT - reach, int(p.y) - reach, int(p.x) - LEFT + reach, int(p.y) + reach) for p in order]
    sizes = [(CHARACTER * len(point.name), LINE) for point in order]
    corners = place_labels(boxes, sizes, (WIDTH - LEFT, HEIGHT - BOTTOM))
    return [
        Point(p.name, p.verdict, p.text, p.x, p.y, LEFT + left, top + LINE - 4)
        for p, (left, top) in zip(order, corners, strict=True)
    ]


@dataclass(frozen=True)
class Curve:
    """Precision upwards, recall to the right, as the `points` of a polyline; `other`: the reference's, thin."""

    title: str
    text: str
    points: str
    other: str = ""
    width: int = CURVE_WIDTH
    height: int = CURVE_HEIGHT


def plot_curves(evidence: Evidence) -> list[Curve]:
    """Plot precision and recall of all classes, then of each class that has a curve."""
    main, reference = evidence.main.by_class, evidence.reference.by_class if evidence.reference else None
    if main is None or not main.curve:
        return []
    other = reference if reference is not None and reference is not main else ByClass(classes=())
    others = {each.class_id: each.curve for each in other.classes}
    mean = sum(each.share for each in main.classes) / len(main.classes)
    curves = [Curve("all classes", f"AP {mean:.3f}", _to_points(main.curve), _to_points(other.curve))]
    return curves + [
        Curve(
            evidence.label(each.class_id),
            f"AP {each.share:.3f}, {count_shown(each)}",
            _to_points(each.curve),
            _to_points(others.get(each.class_id, ())),
        )
        for each in main.classes
        if each.curve
    ]


def count_shown(figures: ClassFigures) -> str:
    """Return how many boxes, or images, show a class."""
    one, many = ("image", "images") if figures.share_50 is None else ("box", "boxes")
    return f"{figures.count} {one if figures.count == 1 else many}"


def _to_points(precisions: Sequence[float]) -> str:
    last = max(1, len(precisions) - 1)
    return " ".join(
        f"{CURVE_WIDTH * index / last:.1f},{CURVE_HEIGHT * (1 - precision):.1f}"
        for index, precision in enumerate(precisions)
    )
