"""The committed rows have their decibels, the page names what lacks its IoU, and a row replaces its own alone."""

from pathlib import Path

import pytest

from lab import measure_edge
from lab.measure_edge import keep
from lab.pages import edge
from lab.pages.edge import TARGETS_DB, EdgeRow, read_results
from lab.pages.rendering import PAGES, page_path

ROWS = read_results(PAGES["edge"]).rows


@pytest.mark.parametrize("row", ROWS, ids=["-".join(row.key) for row in ROWS])
def test_a_committed_export_has_its_decibels_and_the_page_says_where_boxes_lack_their_iou(row: EdgeRow) -> None:
    assert row.measured["overall_snr_db"] >= TARGETS_DB[row.precision], row
    told = f"The {row.example} misses this as `{row.form}` in {row.precision}." in page_path("edge").read_text("utf-8")
    assert told != row.meets_targets


def test_a_row_that_is_measured_again_replaces_its_own_alone(tmp_path: Path) -> None:
    first = ROWS[0]
    second = first.model_copy(update={"form": "litert"})
    for row in (first, second, first.model_copy(update={"megabytes": 1234.5})):
        keep(row, tmp_path / "edge.json")
    assert [row.megabytes for row in read_results(tmp_path / "edge.json").rows] == [1234.5, second.megabytes]
    assert "1234.5" in (tmp_path / "edge.md").read_text("utf-8")


def test_the_command_measures_what_the_page_shows() -> None:
    assert (*measure_edge.EXAMPLES,) == (*edge.EXAMPLES,)
    assert (measure_edge.FORMATS, measure_edge.PRECISIONS) == (edge.FORMATS, edge.PRECISIONS)
