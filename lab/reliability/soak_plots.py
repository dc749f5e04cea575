"""Plots of a soak: memory of each process, and latencies, over time; and the curves that they are drawn from."""

from collections.abc import Sequence
from pathlib import Path

import orjson
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lab.reliability.soak import LONGEST_WARM_UP_S, WARM_UP_SHARE, WINDOW_S, Soak
from lab.testbed.findings import Finding
from lab.testbed.sampling import percentile_ms
from mar_tools.load_testing.plots import COLOURS, GREY, OURS, use_decimal_log_scale, write_figures
from vision_serving.validation import StrictModel, parse_config, read_json

BUCKETS = 60
PERCENTS = (50, 99)
PROCESS_COLOURS = [colour for colour in COLOURS if colour != OURS]  # which marks what was done
CURVES = "curves"  # folder beside the findings


class MemoryCurve(StrictModel):
    """Memory of one process over time."""

    process: str
    minutes: tuple[float, ...]
    memory_mb: tuple[float, ...]


class LatencyCurves(StrictModel):
    """Percentiles of the good requests that were due in each part of the time."""

    minutes: tuple[float, ...]
    p50_ms: tuple[float, ...]
    p99_ms: tuple[float, ...]


class SoakCurves(StrictModel):
    """What is drawn of one soak, `<results>/curves/<row>.json`."""

    row: str
    minutes: float
    memory: tuple[MemoryCurve, ...]
    latency: LatencyCurves


def write_curves(soak: Soak, minutes: float, folder: Path) -> SoakCurves:
    memory = tuple(
        MemoryCurve(
            process=curve.name,
            minutes=tuple(round(moment / 60, 3) for moment in curve.moments),
            memory_mb=tuple(round(value, 1) for value in curve.memory_mb),
        )
        for curve in soak.curves
    )
    row = soak.finding.row
    curves = SoakCurves(row=row, minutes=minutes, memory=memory, latency=read_percentiles(soak.latencies))
    path = folder / CURVES / f"{row}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps(curves.model_dump(mode="json")) + b"\n")
    return curves


def read_curves(path: Path) -> SoakCurves:
    """Raises ConfigError."""
    return parse_config(SoakCurves, read_json(path), str(path))


def read_percentiles(latencies: Sequence[tuple[float, float]]) -> LatencyCurves:
    width = max(due for due, _ in latencies) / BUCKETS
    buckets: dict[int, list[float]] = {}
    for due, latency in latencies:
        buckets.setdefault(min(int(due / width), BUCKETS - 1), []).append(latency)
    numbers = sorted(buckets)
    p50, p99 = (tuple(round(percentile_ms(buckets[number], percent), 1) for number in numbers) for percent in PERCENTS)
    return LatencyCurves(minutes=tuple(round(number * width / 60, 3) for number in numbers), p50_ms=p50, p99_ms=p99)


def plot_soak(curves: SoakCurves, finding: Finding, folder: Path) -> list[Path]:
    """Write `<row>-memory.svg` and `<row>-latency.svg`; return their paths."""
    figures = {
        f"{curves.row}-memory": plot_memory(curves, finding),
        f"{curves.row}-latency": plot_latencies(curves, finding),
    }
    return write_figures(figures, folder, ("svg",))


def plot_memory(curves: SoakCurves, finding: Finding) -> Figure:
    figure, axes = _new_plot("Memory of each process", "memory of its own (USS), MB", curves, finding)
    for curve, colour in zip(curves.memory, PROCESS_COLOURS):
        axes.plot(curve.minutes, curve.memory_mb, color=colour, label=curve.process)
    warm_up = min(WARM_UP_SHARE * curves.minutes, LONGEST_WARM_UP_S / 60)
    axes.axvline(warm_up, color=GREY, linestyle=":", label="from here on, growth is judged")
    axes.set(ylim=(0, None))
    figure.legend(loc="outside lower center", ncols=4, fontsize="small")
    return figure


def plot_latencies(curves: SoakCurves, finding: Finding) -> Figure:
    figure, axes = _new_plot("Latency of good requests", "latency, ms (logarithmic)", curves, finding)
    latency = curves.latency
    for name, values, colour in (
        ("p50", latency.p50_ms, PROCESS_COLOURS[0]),
        ("p99", latency.p99_ms, PROCESS_COLOURS[1]),
    ):
        axes.plot(latency.minutes, values, color=colour, label=name)
    window = min(WINDOW_S / 60, curves.minutes / 3)
    for number, start in enumerate((0.0, curves.minutes - window)):
        label = None if number else "the two times whose p99 is compared"
        axes.axvspan(start, start + window, color=GREY, alpha=0.1, label=label)
    use_decimal_log_scale(axes)
    figure.legend(loc="outside lower center", ncols=4, fontsize="small")
    return figure


def _new_plot(title: str, ylabel: str, curves: SoakCurves, finding: Finding) -> tuple[Figure, Axes]:
    """Return axes over minutes, with a mark over the time in which something was done to the server."""
    figure = Figure(figsize=(8, 3.8), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(
        f"{title}: {curves.minutes:g} minutes of half load ({finding.measured['rate_per_s']:g} requests/s)", pad=24
    )
    done = finding.fault.partition("; ")[2]
    top = axes.get_xaxis_transform()
    axes.plot([0, curves.minutes], [1.02, 1.02], transform=top, color=OURS, linewidth=4, clip_on=False)
    axes.text(0, 1.04, f"all the time: {done}", transform=top, color=OURS, fontsize="small")
    axes.set(xlabel="minutes", ylabel=ylabel, xlim=(0, curves.minutes))
    axes.grid(visible=True, which="both", alpha=0.3)
    return figure, axes
