"""What the page of drift says of bounds, verdicts and costs is what the code has and what was measured."""

import json
import re
import statistics

import yaml
from markdown_pages import ROOT, read_page

from mar_tools.drift import comparing
from mar_tools.monitoring.score_shifts import WINDOW, WINDOW_IMAGES
from vision_serving.worker.sample_records import MOST_IMAGES, MOST_SCORES
from vision_serving.worker.sample_settings import (
    DAYS_KEY,
    DEFAULT_DAYS,
    DEFAULT_MB,
    PICTURES_KEY,
    SHARE_KEY,
    SIZE_KEY,
)

PAGE = read_page("docs/operate/drift.md")
SHIFTED = f"{comparing.SHIFTED:g}"


def test_the_settings_are_those_of_the_code_with_their_defaults() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", PAGE, re.MULTILINE))
    assert {SHARE_KEY, PICTURES_KEY, SIZE_KEY, DAYS_KEY} <= rows.keys()
    assert rows[SIZE_KEY].endswith(f": {DEFAULT_MB}")
    assert rows[DAYS_KEY].endswith(f": {DEFAULT_DAYS}")
    example = (ROOT / "config.properties").read_text(encoding="utf-8")
    assert f"# {SIZE_KEY}={DEFAULT_MB}\n# {DAYS_KEY}={DEFAULT_DAYS}\n" in example


def test_the_bounds_are_those_of_the_code() -> None:
    assert f"at most {MOST_IMAGES} are kept" in PAGE
    assert f"the best {MOST_SCORES} classes" in PAGE
    assert f"fewer than {comparing.LEAST_IMAGES} images" in PAGE
    assert f"newest {WINDOW_IMAGES} images of the last {WINDOW.days} days" in PAGE


def test_the_verdicts_and_the_alert_have_one_bound() -> None:
    rows = dict(re.findall(r"^\| `([\w ]+)` \| (.*) \|$", PAGE, re.MULTILINE))
    for verdict in (comparing.SHIFT, comparing.ALIKE, comparing.TOO_FEW):
        assert SHIFTED in rows[verdict]
    groups = yaml.safe_load(read_page("deploy/prometheus/rules.yml"))["groups"]
    [alert] = [rule for group in groups for rule in group["rules"] if rule.get("alert") == "VisionScoresShifted"]
    assert alert["expr"] == f"vision_score_shift > {SHIFTED}"
    assert f"fires above {SHIFTED}." in PAGE


def test_the_costs_are_those_of_the_results() -> None:
    rounds = json.loads(read_page("lab/results/performance/counting.json"))["rounds"]
    off, hundredth, every, pictures, answer = (
        statistics.median(each[f"sampled_{mode}_us"] for each in rounds)
        for mode in ("off", "hundredth", "all", "all_pictures", "all_answer")
    )
    stated = re.findall(r"^\| (?:no `sample_share`|one request|every request).* \| ([\d.]+) \|$", PAGE, re.MULTILINE)
    assert stated == [f"{off:.1f}", f"{hundredth:.0f}", f"{every:.0f}", f"{pictures:.0f}"]
    assert f"waits {answer:.0f} microseconds" in PAGE
