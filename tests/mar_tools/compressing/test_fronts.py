"""Which results are worth having."""

from dataclasses import replace
from pathlib import Path

import pytest

from mar_tools.building.candidates import Candidate
from mar_tools.compressing.fronts import Point, front_table, mark_front
from mar_tools.compressing.plots import draw_front
from vision_serving.config import Precision


def new_point(name: str, accuracy: float, rate: float, size_mb: float = 1.0, precision: Precision = "int8") -> Point:
    row = Candidate(
        "openvino", precision, "cpu", "verified", size_mb=size_mb, images_per_s={"1": rate / 2, "8": rate},
        accuracy={"top1": accuracy},
    )  # fmt: skip
    return Point(name=name, recipe=f"{name}/recipe.yaml", rows={f"{name}-{precision}": row})


POINTS = [
    new_point("original", 0.98, 100, 4.0),
    new_point("half", 0.975, 220, 1.0),
    new_point("worse half", 0.96, 210, 1.0),
    new_point("tiny", 0.90, 500, 0.3),
]


def test_the_fastest_that_lost_little_enough_is_chosen_and_beaten_ones_are_told() -> None:
    marked = {point.name: point for point in mark_front(POINTS, 0.98, 0.01)}
    assert [name for name, point in marked.items() if point.is_chosen] == ["half"]
    assert [name for name, point in marked.items() if point.is_on_front] == ["original", "half", "tiny"]
    assert [point.is_within for point in marked.values()] == [True, True, False, False]
    assert marked["half"].times == 2.2


def test_the_original_is_chosen_where_nothing_faster_is_good_enough() -> None:
    marked = mark_front(POINTS, 0.98, 0.001)
    assert [point.name for point in marked if point.is_chosen] == ["original"]


def test_of_a_result_stands_the_fastest_export_that_is_good_enough() -> None:
    int8, fp32 = new_point("half", 0.90, 300), new_point("half", 0.975, 150, precision="fp32")
    both = replace(int8, rows={**int8.rows, **fp32.rows})
    marked = mark_front([POINTS[0], both], 0.98, 0.01)[1]
    assert marked.row is not None
    assert marked.row.precision == "fp32"


def test_a_result_that_could_not_be_built_says_why(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from mar_tools.terminal import print_tables

    marked = mark_front([*POINTS, Point(name="prune 0.9", recipe="", problem="no channels")], 0.98, 0.01)
    found = {
        "points": [point.as_row() for point in marked], "chosen": marked[0].as_row(),
        "untried": ["size 32"], "hopeless": ["prune 0.95"], "budget_min": 5.0,
        "baseline_accuracy": 0.98,
    }  # fmt: skip
    print_tables(front_table(found))
    told = capsys.readouterr().out
    assert "prune 0.9: no channels" in told
    assert "none that lost as little as is allowed is faster than the original" in told
    assert "not tried, as less lost too much: prune 0.95" in told
    assert "not tried, as the budget of 5 min was used up: size 32" in told
    assert max(map(len, told.splitlines()[:8])) <= 80
    marked[0].write(tmp_path / "point.json")
    assert Point.read(tmp_path / "point.json") == marked[0]


def test_the_picture_has_all_that_were_timed(tmp_path: Path) -> None:
    import PIL.Image

    picture = draw_front(mark_front(POINTS, 0.98, 0.01), 0.98, 0.01, tmp_path / "front.png")
    with PIL.Image.open(picture) as drawn:
        assert drawn.width > 800
