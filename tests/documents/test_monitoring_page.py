"""What the page of the metrics says of their cost is what was measured."""

import json
import re
import statistics

from markdown_pages import read_page

PAGE = read_page("docs/operate/monitoring.md")


def test_the_costs_are_those_of_the_results() -> None:
    rounds = json.loads(read_page("lab/results/performance/counting.json"))["rounds"]
    microseconds = {size: statistics.median(each[f"batch_of_{size}_us"] for each in rounds) for size in (1, 8)}
    stated = re.findall(r"^\| a batch of (?:one|eight) \| (\d+) \|$", PAGE, re.MULTILINE)
    assert list(map(int, stated)) == [round(figure) for figure in microseconds.values()]

    results = json.loads(read_page("lab/results/performance/overhead.json"))["results"]
    [ours] = [entry["median"] for entry in results if entry["target"] == "nothing"]
    beside_model_ms = ours["cpu_ms_per_request"] - ours["stages_ms"]["inference"] / ours["batch_size"]
    [(stated_ms, share)] = re.findall(
        r"takes ([\d.]+) ms of CPU time.*?Counting is ([\d.]+) % of that", PAGE, re.DOTALL
    )
    assert float(stated_ms) == round(beside_model_ms, 1)
    assert float(share) == round(100 * microseconds[8] / 8 / 1000 / beside_model_ms, 1)
    assert float(share) <= 2
