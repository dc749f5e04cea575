import PIL.ImageFont
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vision_serving.answers.label_placement import (
    CHARACTERS,
    ELLIPSIS,
    Rectangle,
    contrast,
    fit_text,
    place_labels,
    spell,
)

FONT = PIL.ImageFont.load_default(size=14)


@pytest.mark.parametrize(
    ("first", "second", "ratio"),
    [((0, 0, 0), (255, 255, 255), 21), ((9, 9, 9), (9, 9, 9), 1), ((255, 0, 0), (255, 255, 255), 4.0)],
    ids=["black on white", "itself", "red on white"],
)
def test_contrast_is_that_of_wcag(first: tuple[int, int, int], second: tuple[int, int, int], ratio: float) -> None:
    assert contrast(first, second) == pytest.approx(ratio, abs=0.005)
    assert contrast(second, first) == contrast(first, second)


def test_the_font_has_every_character_that_is_written() -> None:
    missing = bytes(FONT.getmask("\U0010ffff"))  # how a character looks that no font has
    assert [character for character in CHARACTERS if bytes(FONT.getmask(character)) == missing] == []


@pytest.mark.parametrize(
    ("label", "spelled"),
    [
        ("cat", "cat"),
        ("café au lait", "cafe au lait"),
        ("Ångström", "Angstrom"),
        ("ＡＢＣ", "ABC"),  # noqa: RUF001
        ("two\nlines\tand  spaces", "two lines and spaces"),
        ("猫", ""),
        ("кошка", ""),
        ("Straße", ""),
        ("cat 🐈", ""),
        ("\udcff", ""),
        ("\x00", ""),
        ("", ""),
    ],
)
def test_a_label_is_spelled_in_characters_of_the_font_or_not_at_all(label: str, spelled: str) -> None:
    assert spell(label) == spelled


@pytest.mark.parametrize("width", [20, 60, 100])
def test_what_is_too_long_is_shortened_by_no_more_than_it_must(width: int) -> None:
    text = "a very long label of a thing"
    short = fit_text(text, FONT, width)
    assert FONT.getlength(short) <= width
    kept = len(short) - 1
    assert short == text[:kept] + ELLIPSIS
    assert FONT.getlength(text[: kept + 2].rstrip() + ELLIPSIS) > width


def test_what_fits_is_left_as_it_is() -> None:
    assert fit_text("cat", FONT, FONT.getlength("cat")) == "cat"


def test_nothing_but_an_ellipsis_is_left_where_nothing_fits() -> None:
    assert fit_text("cat", FONT, 1) == ELLIPSIS


CANVAS = (400, 300)
BOX: Rectangle = (100, 100, 199, 199)


@pytest.mark.parametrize(
    ("box", "place"),
    [(BOX, (100, 80)), ((100, 5, 199, 99), (100, 100)), ((0, 0, 399, 299), (0, 0)), ((380, 100, 399, 199), (340, 80))],
    ids=["above the box", "below it at the upper edge", "inside where it fills the picture", "left of the right edge"],
)
def test_a_label_stands_where_one_looks_for_it(box: Rectangle, place: tuple[int, int]) -> None:
    assert place_labels([box], [(60, 20)], CANVAS) == [place]


def overlap(first: Rectangle, second: Rectangle) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]


def labels_of(places: list[tuple[int, int]], size: tuple[int, int]) -> list[Rectangle]:
    return [(x, y, x + size[0], y + size[1]) for x, y in places]


def test_labels_of_equal_boxes_stand_side_by_side() -> None:
    labels = labels_of(place_labels([BOX] * 8, [(50, 20)] * 8, CANVAS), (50, 20))
    assert not any(overlap(a, b) for i, a in enumerate(labels) for b in labels[:i])


@given(
    corners=st.lists(st.tuples(*[st.integers(0, 399), st.integers(0, 299)] * 2), max_size=30),
    size=st.tuples(st.integers(1, 400), st.integers(1, 80)),
)
def test_labels_stay_inside_the_picture(corners: list[tuple[int, int, int, int]], size: tuple[int, int]) -> None:
    boxes = [(min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)) for x1, y1, x2, y2 in corners]
    for x1, y1, x2, y2 in labels_of(place_labels(boxes, [size] * len(boxes), CANVAS), size):
        assert 0 <= x1 < x2 <= CANVAS[0]
        assert 0 <= y1 < y2 <= CANVAS[1]
