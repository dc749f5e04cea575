"""The rules of Prometheus and the dashboards of Grafana: tried by Prometheus itself, and made by their code."""

import json
import re
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS, GRAFANA = ROOT / "deploy" / "prometheus", ROOT / "deploy" / "grafana"
PAGE = (ROOT / "docs" / "operate" / "monitoring.md").read_text(encoding="utf-8")
RULES = [rule for group in yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"] for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
OF_SAMPLES = ("_bucket", "_sum", "_count")
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool: apt install prometheus")


def read_expressions() -> dict[str, list[str]]:
    """Return the expressions of all rules and dashboards, by their files."""
    found = {"rules.yml": [rule["expr"] for rule in RULES]}
    for path in sorted((GRAFANA / "dashboards").glob("*.json")):
        panels = json.loads(path.read_text(encoding="utf-8"))["panels"]
        found[path.name] = [target["expr"] for panel in panels for target in panel["targets"]]
    return found


@needs_promtool
def test_each_alert_fires_on_its_fault_and_no_other_does() -> None:
    finished = subprocess.run(
        ["promtool", "test", "rules", "tests.yml"], cwd=PROMETHEUS, capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr


@needs_promtool
def test_prometheus_takes_the_configuration() -> None:
    finished = subprocess.run(
        ["promtool", "check", "config", "prometheus.yml"], cwd=PROMETHEUS, capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_each_alert_has_a_case_that_fires_it_and_a_row_in_the_page() -> None:
    cases = set(re.findall(r'alertname="(\w+)"', (PROMETHEUS / "tests.yml").read_text(encoding="utf-8")))
    rows = set(re.findall(r"^\| `(Vision\w+)` \|", PAGE, re.MULTILINE))
    assert cases == rows == ALERTS.keys()


def test_each_alert_says_what_is_wrong_and_what_to_do() -> None:
    for name, rule in ALERTS.items():
        assert set(rule["annotations"]) == {"summary", "action"}, name
        assert rule["labels"]["severity"] in ("page", "ticket", "info"), name


def test_expressions_name_metrics_that_there_are() -> None:
    shown = set(re.findall(r"^\| `(vision_\w+)` \|", PAGE, re.MULTILINE))
    records = {rule["record"] for rule in RULES if "record" in rule}
    for file, expressions in read_expressions().items():
        for expression in expressions:
            for name in re.findall(r"[\w:]*vision_\w+(?::\w+)?", expression):
                base = next((name.removesuffix(end) for end in OF_SAMPLES if name.endswith(end)), name)
                assert {name, base} & (shown | records), f"{file}: {name}"


def test_the_dashboards_are_what_their_code_makes() -> None:
    pytest.importorskip("grafana_foundation_sdk", reason="needs requirements/dev.txt")
    made = dict(runpy.run_path(str(GRAFANA / "make_dashboards.py"))["make_all"]())
    in_git = {path.name: path.read_text(encoding="utf-8") for path in (GRAFANA / "dashboards").glob("*.json")}
    assert in_git == made, "run python deploy/grafana/make_dashboards.py"
