"""The page on Ray Serve states what its results file has."""

import json
import re
import statistics

from markdown_pages import read_page

from mar_tools.command_line import ROOT

PAGE = read_page("docs/operate/ray.md")
ROUNDS = json.loads((ROOT / "lab" / "results" / "performance" / "ray_serving.json").read_text(encoding="utf-8"))[
    "rounds"
]


def median(name: str) -> float:
    return float(statistics.median(found[name] for found in ROUNDS))


def test_the_rates_and_the_memory_are_those_that_were_measured() -> None:
    text = " ".join(PAGE.split())
    rates = re.search(r"answers (\S+) requests/s, where TorchServe answers (\S+) ", text)
    costs = re.search(r"costs (\S+) ms of a core here, and (\S+) there", text)
    memory = re.search(r"has (\d+) MB of its own, a worker of TorchServe (\d+) MB", text)
    assert rates is not None
    assert costs is not None
    assert memory is not None
    servers = ("ray", "torchserve")
    assert rates.groups() == tuple(f"{median(f'{server}_requests_per_s'):,.0f}" for server in servers)
    assert costs.groups() == tuple(f"{median(f'{server}_cpu_ms_per_request'):.1f}" for server in servers)
    assert memory.groups() == tuple(f"{median(f'{server}_worker_uss_mb'):.0f}" for server in servers)
