"""docs/evidence/compatibility.md from the rows of lab/results/compatibility.json: the same rows give the same page."""

from collections.abc import Sequence

from lab.sweeping.coverage import PRECISIONS, Coverage, Row
from lab.sweeping.plan import list_passes, offered_precisions, why_not_offered
from lab.sweeping.zoo import CALIBRATION_IMAGES, GROUPS, TIMM_MODELS, VERIFICATION_IMAGES, Group
from mar_tools.models.handlers_by_task import REFERENCE
from mar_tools.verification.bounds import RANDOM_BOUNDS
from vision_serving.config import Precision

Column = tuple[str, Precision]  # backend, precision

TITLES: dict[Group, str] = {
    "classification": "torchvision classifiers",
    "timm": "timm classifiers",
    "detection": "torchvision detectors",
}
INTRODUCTION = """# Compatibility

<!-- Written by lab/sweep_zoo.py from compatibility.json: change neither by hand. -->

Which models run on which backend in which precision on a CPU: every classification and detection builder of
torchvision, and {timm} timm models of as many families, each built, exported, loaded as a worker would load it, and
compared with PyTorch's eager fp32. Made, and continued where it was stopped, by

    python lab/sweep_zoo.py

- The networks have random weights, at the size that the library states: what is tested is that every layer computes
  what it should. How much int8 costs a trained network is told by the verification of its own build.
- Compared are {images} photographs; int8 is calibrated with {calibration} others.
- torchvision's `quantization` builders are not among them: they are the same networks with eager int8 kernels inside,
  which only eager runs. Segmentation, video and optical flow are no tasks of this project.
- Of Mask and Keypoint R-CNN these rows tell about the boxes; their masks and keypoints (instances.md) are not part of
  the times.
"""
BOUNDS = """## Bounds

Of a network with random weights no class stands out, so the outputs' signal-to-noise ratio decides; a detector's best
boxes, near ties all of them, must partly be found again.

| precision | least signal-to-noise ratio | least share of boxes that match |
| --- | --- | --- |
"""
CELLS = """`62 dB · 14 ms`: verified; the signal-to-noise ratio of the worst image, and the time for one image in a
batch of one, from pixels to outputs. Detectors: the share of matching boxes in between. Eager fp32 is the reference.
`rejected 12 dB`: it runs, but its answers differ too much. `- (3)`: not to be had, for the reason with that number.
"""


def render_markdown(coverage: Coverage) -> str:
    columns = list_columns(coverage)
    notes: dict[str, int] = {}
    tables = [_group_table(group, coverage, columns, notes) for group in GROUPS]
    intro = INTRODUCTION.format(
        timm=len(TIMM_MODELS),
        images=VERIFICATION_IMAGES,
        calibration=CALIBRATION_IMAGES,
    )
    parts = [intro, _bounds(), _summary(coverage, columns), "## Models\n\n" + CELLS, *tables]
    parts += [_reasons(notes), _runs(coverage)]
    return "\n".join(part for part in parts if part)


def list_columns(coverage: Coverage) -> list[Column]:
    """Of the backends that have rows, in the order of the passes."""
    present = {row.backend for row in coverage.rows}
    backends = [backend for backends in list_passes() for backend in backends if backend in present]
    return [(backend, precision) for backend in backends for precision in offered_precisions(backend)]


def _bounds() -> str:
    lines = [
        f"| {precision} | {bounds['min_snr_db']:g} dB | {percent(bounds['min_matched_boxes'])} |"
        for precision, bounds in RANDOM_BOUNDS.items()
        if precision in PRECISIONS
    ]
    return BOUNDS + _lines(lines)


def _summary(coverage: Coverage, columns: Sequence[Column]) -> str:
    lines = ["| backend | precision | " + " | ".join(TITLES.values()) + " |", _rule(2 + len(TITLES))]
    for backend in dict.fromkeys(backend for backend, _ in columns):
        for precision in PRECISIONS:
            if (backend, precision) in columns:
                shares = [_share(group, (backend, precision), coverage.rows) for group in TITLES]
                lines.append(f"| {backend} | {precision} | " + " | ".join(shares) + " |")
            else:
                reason = why_not_offered(backend, precision)
                lines.append(f"| {backend} | {precision} | not supported: {reason} |" + " |" * (len(TITLES) - 1))
    return "## Summary\n\nVerified models, of those that were tried.\n\n" + _lines(lines)


def _share(group: Group, column: Column, rows: Sequence[Row]) -> str:
    tried = [row for row in rows if (row.group, row.backend, row.precision) == (group, *column)]
    verified = sum(row.status == "verified" for row in tried)
    return f"{verified} of {len(tried)} ({percent(verified / len(tried))})" if tried else ""


def _group_table(group: Group, coverage: Coverage, columns: Sequence[Column], notes: dict[str, int]) -> str:
    """Models x columns. Reasons that come up are added to `notes` with the next number."""
    models = list(dict.fromkeys(row.model for row in coverage.rows if row.group == group))
    if not models:
        return ""
    by_key = coverage.by_key
    lines = ["| model | " + " | ".join(f"{backend} {precision}" for backend, precision in columns) + " |"]
    lines.append(_rule(1 + len(columns)))
    for model in models:
        found = [by_key.get((group, model, *column)) for column in columns]
        lines.append(f"| {model} | " + " | ".join(_cell(row, notes) for row in found) + " |")
    return f"### {TITLES[group]}\n\n" + _lines(lines)


def _cell(row: Row | None, notes: dict[str, int]) -> str:
    if row is None:
        return ""
    measured = [] if row.snr_db is None else [f"{row.snr_db:.0f} dB"]
    if row.matched_boxes is not None:
        measured.append(percent(row.matched_boxes))
    if row.status == "verified":
        told = ["reference"] if f"{row.backend}-{row.precision}" == REFERENCE else measured
        return " · ".join([*told, *([] if row.ms is None else [f"{row.ms:.{0 if row.ms >= 10 else 1}f} ms"])])
    if row.status == "rejected":
        return f"rejected {' · '.join(measured)}"
    reason = (row.reason or "no reason given") if row.status == "not supported" else f"{row.status}: {row.reason}"
    return f"- ({notes.setdefault(reason, len(notes) + 1)})"


def _reasons(notes: dict[str, int]) -> str:
    lines = [f"{number}. {_escape(reason)}" for reason, number in notes.items()]
    return "## Reasons\n\n" + _lines(lines) if lines else ""


def _runs(coverage: Coverage) -> str:
    lines = []
    for run in coverage.runs:
        versions = ", ".join(f"{name} {number}" for name, number in sorted(run.versions.items()))
        timed = "measured on an idle machine" if run.timed else "measured while the machine did other things"
        lines.append(f"- {run.date}, {run.cpu}, {run.cores} cores, times {timed}: {versions}")
    return "## Made on\n\n" + _lines(lines) if lines else ""


def percent(share: float) -> str:
    """Rounded down: 100 % is all of them."""
    return f"{int(100 * share + 1e-9)} %"


def _escape(text: str) -> str:
    """Of Markdown and HTML, what error messages contain."""
    for character in "\\`*_<>[]|~":
        text = text.replace(character, f"\\{character}")
    return text


def _rule(count: int) -> str:
    return "| " + " | ".join(["---"] * count) + " |"


def _lines(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
