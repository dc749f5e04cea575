import io
from collections.abc import Sequence
from dataclasses import replace

import pytest
from rich.console import Console

from mar_tools.building.candidates import Candidate, find_chosen, mark_fastest
from mar_tools.building.table import candidate_table, describe_slow_choice, figures
from vision_serving.config import Precision


def row(backend: str, precision: Precision, verdict: str = "verified", **values: object) -> Candidate:
    return replace(Candidate(backend, precision, "cpu", "verified"), verdict=verdict, **values)  # type: ignore[arg-type]


def timed(backend: str, rate: float, speedup: float | None) -> Candidate:
    return row(backend, "fp32", images_per_s={"1": 99.0, "8": rate}, speedup=speedup)


SLOW, FAST = timed("eager", 10.0, 1.0), timed("openvino", 20.0, 2.0)
# Timed later, when the machine was busy: eager fp32 was slower then, too.
BUSY = timed("onnxruntime", 15.0, 3.0)
WITHOUT_SPEEDUP = timed("aotinductor", 30.0, None)
REJECTED = row("torchscript", "bf16", "rejected", reason="snr_db 3 < 20")
REFERENCE = replace(timed("eager", 90.0, 1.0), verdict="reference")


@pytest.mark.parametrize(
    ("rows", "chosen"),
    [
        ([], None),
        ([REJECTED, REFERENCE], None),
        ([SLOW], "eager"),
        ([SLOW, REJECTED, FAST], "openvino"),
        ([FAST, BUSY, SLOW], "onnxruntime"),
        ([FAST, WITHOUT_SPEEDUP, SLOW], "aotinductor"),
    ],
    ids=["none", "none passed", "one", "the fastest", "by the factor over eager", "by rate where eager was lost"],
)
def test_the_fastest_that_passed_is_chosen(rows: Sequence[Candidate], chosen: str | None) -> None:
    marked = mark_fastest(rows)
    found = find_chosen(marked)
    assert (found.backend if found else None) == chosen
    assert [replace(m, verdict=r.verdict) for m, r in zip(marked, rows, strict=True)] == list(rows)


FIGURES = {"size_mb": 6.123, "load_s": 0.456, "images_per_s": {"1": 91.23, "8": 1234.5}, "speedup": 3.456}
AGREEMENT = {"top1_agreement": 0.9875, "score_difference": 0.1, "snr_db": 24.6}
ROWS = [
    row("openvino", "int8", "chosen", **FIGURES, measured=AGREEMENT, accuracy={"top1": 0.987, "top5": 1.0}),
    row("aotinductor", "int8", "failed", reason="crashed: signal SIGSEGV"),
    row("onnxruntime", "int8", "rejected", reason="snr_db 3.2, expected at least 10", size_mb=6.0),
    row("eager", "fp32", images_per_s={"1": 45.6, "8": 357.1}, speedup=1.0, measured={"top1_agreement": 1.0}),
]


def render(width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(candidate_table(ROWS))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 100, 160])
def test_the_table_fits_and_every_figure_is_whole(width: int) -> None:
    lines = render(width).splitlines()
    assert max(map(len, lines)) <= width
    [chosen] = [line.split() for line in lines if "chosen" in line]
    assert chosen == ["openvino", "int8", "6.12", "0.456", "91.2", "1234", "3.46", "0.988", "24.6", "0.987", "chosen"]
    order = [line.split()[0] for line in lines if line.split()[:1] and line.split()[0] in {r.backend for r in ROWS}]
    assert order[:4] == ["openvino", "eager", "onnxruntime", "aotinductor"]


def test_what_did_not_pass_says_why_below() -> None:
    assert [line.strip() for line in render(100).splitlines()[-2:]] == [
        "onnxruntime int8 rejected: snr_db 3.2, expected at least 10",
        "aotinductor int8 failed: crashed: signal SIGSEGV",
    ]


def test_columns_without_content_are_left_out() -> None:
    console = Console(file=io.StringIO(), width=100)
    console.print(candidate_table([row("eager", "bf16", "failed", reason="not possible")]))
    assert isinstance(console.file, io.StringIO)
    assert [line.split() for line in console.file.getvalue().splitlines() if "candidate" in line] == [
        ["candidate", "verdict"]
    ]


def test_a_detector_is_told_by_its_boxes_and_map() -> None:
    detector = row("eager", "bf16", measured={"matched_boxes": 0.98, "iou": 0.7}, accuracy={"map": 0.4, "map_50": 0.6})
    shown = figures([detector])
    assert (shown["same\nboxes"](detector), shown["\nmAP"](detector)) == (0.98, 0.4)


def test_independent_scores_are_told_by_their_labels() -> None:
    labels = row("eager", "bf16", measured={"matched_labels": 0.9, "snr_db": 30.0})
    assert figures([labels])["same\nlabels"](labels) == 0.9


UNTRIED = row("openvino", "int8", "not tried", reason="the budget of 1 min was used up")
EAGER = row("eager", "fp32", "chosen")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([EAGER, REJECTED, UNTRIED], "only eager PyTorch is left, the slowest way to serve a model: of 2 other"),
        ([EAGER, UNTRIED], "--budget-min gives it more time"),
        ([EAGER, FAST, REJECTED], None),
        ([EAGER, row("eager", "bf16")], None),
        ([REJECTED], None),
    ],
    ids=["rejected", "no time", "another passed", "nothing else was asked for", "nothing passed"],
)
def test_a_build_says_aloud_that_nothing_but_eager_is_left(rows: Sequence[Candidate], words: str | None) -> None:
    line = describe_slow_choice(rows)
    assert line is None if words is None else words in str(line)
