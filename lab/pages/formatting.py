"""How figures look in the pages: the filters of the templates."""

import re
import statistics
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # it imports PyTorch, which takes seconds, and `render_pages.py --help` should not
    from mar_tools.load_testing.comparison import Spread

UNITS = {
    "_mb_per_h": "MB/h",
    "_per_s": "/s",
    "_mib": "MiB",
    "_mb": "MB",
    "_ms": "ms",
    "_s": "s",
}  # suffix of a name -> unit; the first one that fits


def format_figure(value: float | None, digits: int = 4) -> str:
    """Return a number with so many significant digits. Large numbers have commas instead of a power of ten."""
    if value is None:
        return ""
    short = f"{value:.{digits}g}"
    return f"{float(short):,.0f}" if "e+" in short else short


def format_spread(value: "Spread | None") -> str:
    """Return the median of a ratio, with the least and the most of single rounds."""
    return "" if value is None else f"{value.median:.2f} ({value.least:.2f} - {value.most:.2f})"


def format_percent(share: float, digits: int = 1) -> str:
    """Return a share rounded to so many digits."""
    return f"{100 * share:.{digits}f}".rstrip("0").rstrip(".") + " %" if share else "0 %"


def round_down_percent(share: float) -> str:
    """Return a share rounded down: only all of them are 100 %."""
    return f"{int(100 * share + 1e-9)} %"


def summarise_values(value: Any) -> str:
    """Give the least and the most of counts, for none may hide behind an average; times as median (least - most)."""
    if not isinstance(value, list):
        return f"{value:g}" if isinstance(value, float) else str(value)
    if len(set(value)) == 1:
        return f"{value[0]:g}" + (" each time" if len(value) > 1 else "")
    ranked = sorted(value)
    if all(float(entry).is_integer() for entry in value):
        return f"{ranked[0]:g} - {ranked[-1]:g}"
    return f"{ranked[len(ranked) // 2]:.3g} ({ranked[0]:.3g} - {ranked[-1]:.3g})"


def add_unit(text: str, name: str) -> str:
    """Write `ready_s` and `7.5` as `ready: 7.5 s`."""
    words, unit = split_unit(name)
    return f"{words}: {text} {unit}".rstrip()


def split_unit(name: str) -> tuple[str, str]:
    """Split `ready_s` into `ready` and `s`."""
    suffix = next((suffix for suffix in UNITS if name.endswith(suffix)), "")
    return name.removesuffix(suffix).replace("_", " "), UNITS.get(suffix, "")


def escape_markdown(text: str) -> str:
    """Escape what Markdown and HTML would read as theirs."""
    return re.sub(r"([\\<>|*_`\[\]~])", r"\\\1", text)


def protect_cell(text: str) -> str:
    """Keep a table's cell whole. Markdown in it stays."""
    return text.replace("|", r"\|")


FILTERS: dict[str, Callable[..., Any]] = {
    "figure": format_figure,
    "spread": format_spread,
    "percent": format_percent,
    "percent_down": round_down_percent,
    "escape_markdown": escape_markdown,
    "cell": protect_cell,
    "median": statistics.median,
}
