"""docs/evidence/compatibility.md: what the rows of the sweep say, and nothing else."""

from pathlib import Path

import pytest
from sweep_rows import RUN, new_row

from lab.pages.rendering import render_page
from lab.sweeping.coverage import Coverage, CoverageRow, write_coverage
from lab.sweeping.plan import list_passes


def render(folder: Path, *rows: CoverageRow) -> str:
    coverage = Coverage()
    for row in rows:
        coverage = coverage.with_row(row, RUN)
    write_coverage(coverage, folder / "compatibility.json")
    return render_page("compatibility", folder / "compatibility.json")


def line_of(page: str, model: str) -> str:
    (line,) = (line for line in page.partition("## All models")[2].splitlines() if line.startswith(f"| {model} |"))
    return line


@pytest.mark.parametrize(
    ("row", "cell"),
    [
        (new_row(), "62 dB · 14 ms"),
        (new_row(matched_boxes=0.975, ms=1234.5), "62 dB · 97 % · 1234 ms"),
        (new_row("eager", snr_db=200, ms=1.26), "reference · 1.3 ms"),
        (new_row(status="rejected", reason="snr_db 12", snr_db=12.4), "rejected 12 dB"),
        (new_row(status="not supported", reason="no `kernel`", snr_db=None), "- (1)"),
    ],
    ids=["verified", "a detector", "the reference", "rejected", "not supported"],
)
def test_a_cell_is_short(tmp_path: Path, row: CoverageRow, cell: str) -> None:
    assert line_of(render(tmp_path, row), "squeezenet1_1") == f"| squeezenet1_1 | {cell} |"


def test_equal_reasons_share_a_number_and_are_listed_once(tmp_path: Path) -> None:
    rows = [
        new_row(backend, status="not supported", reason="no *kernel*", snr_db=None) for backend in ("openvino", "eager")
    ]
    page = render(tmp_path, *rows)
    assert line_of(page, "squeezenet1_1").count("- (1)") == 2
    assert page.count("1. `no *kernel*`") == 1
    assert "| squeezenet1_1 | eager fp32: does not run (1)<br>openvino fp32: does not run (1) |" in page


def test_the_summary_counts_what_was_tried_and_says_what_is_not_offered(tmp_path: Path) -> None:
    page = render(tmp_path, new_row(), new_row(model="alexnet", status="rejected"), new_row("eager"))
    assert "2 of 3 combinations of model, backend and precision are verified" in page
    assert "| openvino | fp32 | 1 of 2 (50 %) | not tried | not tried |" in page
    assert "- eager does not offer int8: PyTorch has no eager int8 kernels" in page
    assert "1 rejected." in page


def test_a_backend_without_rows_is_named(tmp_path: Path) -> None:
    others = [backend for backends in list_passes() for backend in backends if backend not in ("openvino", "eager")]
    page = render(tmp_path, new_row(), new_row("eager"))
    assert f"The sweep has no rows yet for {', '.join(others)}." in page
