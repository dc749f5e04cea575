"""The comparison of traffic with a verification, as people and programs read it."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from mar_tools.distributions import NOTHING
from mar_tools.drift.comparing import SHIFT, SHIFTED, TITLES, TOO_FEW, Comparison
from mar_tools.drift.reference import Reference
from mar_tools.drift.samples import Samples
from mar_tools.images import show_line
from mar_tools.terminal import name_column, new_table, number_column

MOST_ROWS = 20  # of a table of bins
STYLES = {SHIFT: "bold red", TOO_FEW: "yellow"}


def describe_samples(model: str, version: str, reference: Reference, samples: Samples) -> str:
    """Return in words what is compared."""
    share = f"{100 * samples.failed / samples.images:.1f} %" if samples.images else "none"
    lines = [
        f"{model} {version}: {samples.images} images of {samples.requests} sampled requests"
        + (f", {samples.first[:16]} to {samples.last[:16]} UTC" if samples.requests else ""),
        f"verified with {reference.source}",
        f"images with an error: {share}{_name_errors(samples)}",
    ]
    if samples.own_options:
        lines.append(
            f"{samples.own_options} requests chose thresholds or classes themselves: their scores are not compared"
        )
    return "\n".join(lines)


def _name_errors(samples: Samples) -> str:
    errors = {name: count for name, count in samples.outcomes.items() if name.endswith("Error")}
    return f" ({', '.join(f'{count} {name}' for name, count in sorted(errors.items()))})" if errors else ""


def overview_table(compared: Sequence[Comparison]) -> Table:
    """Return a row for each part."""
    table = new_table(
        "what",
        *map(number_column, ("verified", "sampled", "distance", "by chance")),
        "verdict",
        caption=f"distance: 0 the same, 1 nothing in common; above {SHIFTED} and above chance it is a shift",
    )
    for each in compared:
        distance = "-" if each.distance is None else f"{each.distance:.3f}"
        counts = (str(each.expected_images), str(each.found_images))
        verdict = Text(each.verdict, style=STYLES.get(each.verdict, ""))
        table.add_row(TITLES[each.part], *counts, distance, f"{each.chance:.3f}", verdict)
    return table


def bins_table(compared: Comparison, reference: Reference) -> Table:
    """Return a row for each bin: of classes the ones that differ most."""
    rows = [(name, compared.expected[name], compared.found[name]) for name in compared.expected]
    if compared.part == "classes":
        rows.sort(key=lambda row: -abs(row[2] - row[1]))
    left = len(rows) - MOST_ROWS
    table = new_table(
        name_column(TITLES[compared.part]),
        *map(number_column, ("verified %", "sampled %", "difference")),
        caption=f"and {left} more, which differ less" if left > 0 else None,
    )
    for name, expected, found in rows[:MOST_ROWS]:
        shown = reference.name_class(name) if compared.part == "classes" and name != NOTHING else name
        figures = (f"{100 * expected:.1f}", f"{100 * found:.1f}", f"{100 * (found - expected):+.1f}")
        table.add_row(Text(show_line(shown)), *figures)
    return table


def to_document(
    model: str, version: str, reference: Reference, samples: Samples, compared: Sequence[Comparison]
) -> dict[str, Any]:
    """Return all of it for `--json`."""
    return {
        "model": model,
        "version": version,
        "verified": reference.source,
        "requests": samples.requests,
        "images": samples.images,
        "first": samples.first or None,
        "last": samples.last or None,
        "own_options": samples.own_options,
        "failed": samples.failed,
        "outcomes": dict(samples.outcomes),
        "shifted": any(each.verdict == SHIFT for each in compared),
        "parts": {
            each.part: {
                "verdict": each.verdict,
                "distance": each.distance,
                "by_chance": each.chance,
                "verified_images": each.expected_images,
                "sampled_images": each.found_images,
                "verified": each.expected,
                "sampled": each.found,
            }
            for each in compared
        },
    }
