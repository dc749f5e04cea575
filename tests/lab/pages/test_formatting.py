"""How figures look in the pages."""

import pytest

from lab.pages.formatting import (
    add_unit,
    escape_markdown,
    format_figure,
    format_percent,
    round_down_percent,
    summarise_values,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, "3"),
        (100.25, "100.25"),
        ("a text", "a text"),
        ([0, 0], "0 each time"),
        ([4], "4"),
        ([4, 0, 4], "0 - 4"),
        ([1.5, 0.25, 2.5], "1.5 (0.25 - 2.5)"),
        ([0] * 50 + [1], "0 - 1"),
    ],
)
def test_counts_and_times_are_shown_by_their_range(value: object, text: str) -> None:
    assert summarise_values(value) == text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ready_s", "ready: 7 s"),
        ("rate_per_s", "rate: 7 /s"),
        ("worker_1_mb_per_h", "worker 1: 7 MB/h"),
        ("largest_rise_mib", "largest rise: 7 MiB"),
        ("failed_others", "failed others: 7"),
        ("restarts", "restarts: 7"),
    ],
)
def test_the_unit_in_a_name_stands_behind_the_figure(name: str, text: str) -> None:
    assert add_unit("7", name) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), (0, "0"), (161.83, "161.8"), (0.0666, "0.0666"), (10285.0, "10,280")]
)
def test_a_figure_has_four_digits_and_no_power_of_ten(value: float | None, text: str) -> None:
    assert format_figure(value) == text


@pytest.mark.parametrize(("share", "text"), [(1.0, "100 %"), (0.999, "99 %"), (0.29, "29 %"), (0.0, "0 %")])
def test_only_all_is_a_hundred_percent(share: float, text: str) -> None:
    assert round_down_percent(share) == text


@pytest.mark.parametrize(("share", "digits", "text"), [(0.918, 1, "91.8 %"), (0.00128, 2, "0.13 %"), (0, 2, "0 %")])
def test_a_share_is_rounded_to_its_digits(share: float, digits: int, text: str) -> None:
    assert format_percent(share, digits) == text


def test_what_markdown_and_html_would_read_is_escaped() -> None:
    assert escape_markdown("<b>*a|b*_`[c]\\~") == r"\<b\>\*a\|b\*\_\`\[c\]\\\~"
