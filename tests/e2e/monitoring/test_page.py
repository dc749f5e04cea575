"""The page of the metrics names what the exporter shows, and nothing else."""

import re

from prometheus_client.parser import text_string_to_metric_families

from e2e.conftest import ROOT

from .conftest import Monitored

PAGE = (ROOT / "docs" / "operate" / "monitoring.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(vision_\w+)` \| ([^|]*)\| ", re.MULTILINE)
OF_ALL = PAGE[PAGE.index("### Requests") : PAGE.index("### The server")]


def page_metrics() -> dict[str, set[str]]:
    """Return the labels of each metric that the page has."""
    found = {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in ROW.findall(PAGE)}
    for name, _ in ROW.findall(OF_ALL):
        found[name] |= {"model", "version"}
    return found


def test_the_page_has_every_metric_with_its_labels(monitored: Monitored) -> None:
    shown: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(monitored.text()):
        if family.name.startswith("vision_"):
            name = family.name + "_total" * (family.type == "counter")
            shown[name] = {label for sample in family.samples for label in sample.labels} - {"le"}
    named = page_metrics()
    assert shown.keys() == named.keys()
    assert {name: labels for name, labels in shown.items() if labels - named[name]} == {}
    assert PAGE.count("| `vision_") == len(named), "a metric stands twice"
