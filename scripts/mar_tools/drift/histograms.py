"""The comparison of traffic with a verification as a picture: a panel for each part, two bars for each bin."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mar_tools.distributions import NOTHING
from mar_tools.drift.comparing import TITLES, Comparison
from mar_tools.drift.reference import Reference
from mar_tools.images import show_line
from mar_tools.load_testing.plots import OTHERS, OURS, write_figures

MOST_BARS = 20
LONGEST_NAME = 14  # characters
TURNED_FROM = 6  # bins whose names no longer stand side by side
HALF = 0.4  # of the place of a bin is the width of a bar


def draw_comparison(
    title: str, compared: Sequence[Comparison], reference: Reference, folder: Path, name: str
) -> list[Path]:
    """Write `<name>.png` and `.svg` into a folder; return the paths."""
    rows = -(-len(compared) // 2)
    figure = Figure(figsize=(10, 0.6 + 3.2 * rows), layout="constrained")
    figure.suptitle(title)
    for number, each in enumerate(compared, 1):
        _draw_bars(figure.add_subplot(rows, 2, number), each, reference)
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2)
    return write_figures({name: figure}, folder)


def _draw_bars(axes: Axes, compared: Comparison, reference: Reference) -> None:
    bins = list(compared.expected)[:MOST_BARS]
    places = np.arange(len(bins))
    for offset, shares, colour, label in (
        (-HALF / 2, compared.expected, OTHERS, "verification"),
        (HALF / 2, compared.found, OURS, "traffic"),
    ):
        axes.bar(places + offset, [100 * shares[name] for name in bins], HALF, color=colour, label=label)
    distance = "no images" if compared.distance is None else f"distance {compared.distance:.2f}"
    left = f", {MOST_BARS} most frequent" if len(compared.expected) > MOST_BARS else ""
    axes.set_title(f"{TITLES[compared.part]}{left}: {distance}, {compared.verdict}", fontsize="medium")
    axes.set(ylabel="% of images")
    names = [_name(name, compared, reference) for name in bins]
    is_turned = len(bins) >= TURNED_FROM
    axes.set_xticks(
        places, names, fontsize="small", rotation=45 if is_turned else 0, ha="right" if is_turned else "center"
    )
    axes.grid(visible=True, axis="y", alpha=0.3)


def _name(name: str, compared: Comparison, reference: Reference) -> str:
    shown = reference.name_class(name) if compared.part == "classes" and name != NOTHING else name
    shown = show_line(shown).replace("$", r"\$")  # which would begin a formula
    return shown if len(shown) <= LONGEST_NAME else f"{shown[: LONGEST_NAME - 1]}…"
