"""Pictures of a soak: memory of each process, and latencies, over time."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from lab.reliability.soak import Soak
from lab.testbed.sampling import percentile_ms
from mar_tools.load_testing.plots import COLOURS

BUCKETS = 60


def plot_soak(soak: Soak, folder: Path) -> list[Path]:
    """Write `<row>-memory.svg` and `<row>-latency.svg`; their paths."""
    figures = {"memory": plot_memory(soak), "latency": plot_latencies(soak.latencies)}
    written = []
    with matplotlib.rc_context({"svg.hashsalt": "vision-serving", "svg.fonttype": "none"}):
        for name, figure in figures.items():
            path = folder / f"{soak.finding.row}-{name}.svg"
            figure.savefig(path, metadata={"Date": None})
            written.append(path)
    return written


def plot_memory(soak: Soak) -> Figure:
    figure = Figure(figsize=(8, 3.5), layout="constrained")
    axes = figure.add_subplot()
    for curve, colour in zip(soak.curves, COLOURS):
        axes.plot([moment / 60 for moment in curve.moments], curve.memory_mb, color=colour, label=curve.name)
    axes.set(xlabel="minutes", ylabel="memory of its own (USS), MB", ylim=(0, None))
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    return figure


def plot_latencies(latencies: Sequence[tuple[float, float]]) -> Figure:
    figure = Figure(figsize=(8, 3.5), layout="constrained")
    axes = figure.add_subplot()
    width = max(due for due, _ in latencies) / BUCKETS
    buckets: dict[int, list[float]] = {}
    for due, latency in latencies:
        buckets.setdefault(int(due / width), []).append(latency)
    minutes = [number * width / 60 for number in sorted(buckets)]
    for percent, colour in zip((50, 99), COLOURS):
        values = [percentile_ms(buckets[number], percent) for number in sorted(buckets)]
        axes.plot(minutes, values, color=colour, label=f"p{percent}")
    axes.set(xlabel="minutes", ylabel="latency of good requests, ms", yscale="log")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    return figure
