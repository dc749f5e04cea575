"""The times on the page of containers are those of the results."""

import re

import orjson
from markdown_pages import ROOT, read_page

PAGE = read_page("docs/operate/containers.md")
RESULTS = orjson.loads((ROOT / "lab" / "results" / "lifecycle.json").read_bytes())


def test_start_and_stop_have_the_times_that_were_measured() -> None:
    rows = re.findall(r"(?m)^\| from .+? \| ([\d.]+) s \| ([\d.]+) s \| ([\d.]+) s \|$", PAGE)
    for row, key in zip(rows, ("start_s", "drain_s"), strict=True):
        times = [each[key] for each in RESULTS["rounds"]]
        assert row == tuple(f"{time:.1f}" for time in (RESULTS[key], min(times), max(times)))


def test_the_load_of_the_machine_is_said() -> None:
    loads = [each["load_average"] for each in RESULTS["rounds"]]
    assert f"the load average was between {min(loads)} and {max(loads)}" in " ".join(PAGE.split())
    assert f"while {RESULTS['clients']} clients ask" in PAGE
