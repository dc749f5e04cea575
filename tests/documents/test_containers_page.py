"""The times and sizes on the page of containers are those of the results."""

import re
from typing import Any

import orjson
import pytest
from markdown_pages import ROOT, read_page

PAGE = read_page("docs/operate/containers.md")
COLUMNS = ("lifecycle", "lifecycle_container")
RESULTS = {name: orjson.loads((ROOT / "lab" / "results" / f"{name}.json").read_bytes()) for name in COLUMNS}


def find_row(first: str) -> list[str]:
    """Return what a row of the table has beside its name, which begins so."""
    [cells] = re.findall(rf"(?m)^\| {first}.* \| (.+) \| (.+) \|$", PAGE)
    return list(cells)


def range_of(result: dict[str, Any], key: str) -> tuple[float, float]:
    values = [each[key] for each in result["rounds"]]
    return min(values), max(values)


@pytest.mark.parametrize(("row", "key"), [("from the command", "start_s"), ("from SIGTERM", "drain_s")])
def test_start_and_stop_have_the_times_that_were_measured(row: str, key: str) -> None:
    told = [(result[key], *range_of(result, key)) for result in RESULTS.values()]
    assert find_row(row) == ["{:.1f} s ({:.1f} to {:.1f})".format(*times) for times in told]


def test_the_load_of_the_machine_is_said() -> None:
    told = [range_of(result, "load_average") for result in RESULTS.values()]
    assert find_row("load average") == ["{} to {}".format(*load) for load in told]
    assert {f"while {result['clients']} clients ask" in PAGE for result in RESULTS.values()} == {True}


def test_the_sizes_of_images_are_those_that_were_measured() -> None:
    sizes = {
        name: f"{megabytes / 1000:.2f} GB" for name, megabytes in RESULTS["lifecycle_container"]["image_mb"].items()
    }
    assert sizes["vision-front"] == sizes["vision-cloud"]
    assert f"the image is {sizes['vision-serving']}, and {sizes['vision-front']} with nginx" in " ".join(PAGE.split())
