"""Accuracy against speed of all results, as a picture; the size of a point is that of its artifact."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from mar_tools.compressing.fronts import Point

FRONT, OTHERS, CHOSEN = "#0072b2", "#8a8a8a", "#d55e00"  # told apart by all
DPI = 130
AREA = 260.0  # of the largest point, in square points
LEAST_AREA = 24.0
LEAST_SPAN = 0.02  # of an accuracy: differences below look like what they are


def draw_front(points: Sequence[Point], baseline_accuracy: float, max_drop: float, picture: Path) -> Path:
    """Draw the points that were timed into a PNG; return it."""
    timed = [point for point in points if point.row is not None and point.row.images_per_s]
    figure = Figure(figsize=(8.4, 5.2), layout="constrained")
    axes = figure.subplots()
    largest = max(((point.row.size_mb or 0.0) for point in timed if point.row), default=1.0) or 1.0
    for point in timed:
        row = point.row
        assert row is not None
        colour = CHOSEN if point.is_chosen else FRONT if point.is_on_front else OTHERS
        area = max(LEAST_AREA, AREA * (row.size_mb or 0.0) / largest)
        axes.scatter([row.rate], [point.accuracy], s=area, color=colour, alpha=0.75, zorder=3)
    front = sorted((point.row.rate, point.accuracy) for point in timed if point.is_on_front and point.row)
    if len(front) > 1:
        axes.plot(*zip(*front, strict=True), color=FRONT, linewidth=0.8, alpha=0.5, zorder=2)
    axes.axhline(baseline_accuracy, color="black", linewidth=0.8, linestyle=":")
    axes.axhline(baseline_accuracy - max_drop, color=CHOSEN, linewidth=0.8, linestyle="--")
    least = min([point.accuracy for point in timed] + [baseline_accuracy - max_drop])
    most = max([point.accuracy for point in timed] + [baseline_accuracy])
    room = max(LEAST_SPAN, most - least) * 0.12
    axes.set_ylim(least - room, most + room)
    _write_names(axes, timed)
    middle = axes.get_yaxis_transform()  # where few points are, and no names
    axes.text(0.5, baseline_accuracy, "before compression", fontsize=8, va="bottom", transform=middle)
    axes.text(
        0.5,
        baseline_accuracy - max_drop,
        f"may lose {max_drop:g}",
        fontsize=8,
        va="top",
        color=CHOSEN,
        transform=middle,
    )
    axes.set(xlabel="images per second, from encoded picture to answer", ylabel="accuracy of the archive")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.set_title("orange: chosen; blue: beaten by none; area: size of the artifact", fontsize=9, loc="left")
    figure.savefig(picture, dpi=DPI)
    return picture


def _write_names(axes: object, points: Sequence[Point]) -> None:
    """Write each name beside its point, to the left where the right side has no room."""
    rates = [point.row.rate for point in points if point.row is not None]
    middle = (min(rates, default=0.0) + max(rates, default=0.0)) / 2
    for number, point in enumerate(sorted(points, key=lambda each: each.accuracy)):
        assert point.row is not None
        is_left = point.row.rate > middle
        axes.annotate(  # type: ignore[attr-defined]
            f"{point.name} ({point.row.precision})",
            (point.row.rate, point.accuracy),
            xytext=(-9 if is_left else 9, 4 if number % 2 else -4),
            textcoords="offset points",
            ha="right" if is_left else "left",
            va="bottom" if number % 2 else "top",
            fontsize=7.5,
        )
