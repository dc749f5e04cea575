"""The options and figures in docs/use/detection.md are those of the code and of the results file."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from vision_serving.config import ImageLimits
from vision_serving.options import DetectionOptions

ROOT = Path(__file__).resolve().parents[2]
LINES = (ROOT / "docs" / "use" / "detection.md").read_text(encoding="utf-8").splitlines()
RESULTS = orjson.loads((ROOT / "examples" / "digits_detection" / "tiling_results.json").read_bytes())
SMALL, MIXED = RESULTS["long_side_px"].values()


def named(tile_size: int) -> str:
    return str(tile_size) if tile_size else "one pass"


@pytest.mark.parametrize(("small", "mixed"), list(zip(SMALL["runs"], MIXED["runs"])))
def test_what_tiles_find_and_cost_stands_in_the_page(small: dict[str, Any], mixed: dict[str, Any]) -> None:
    figures = f"{small['map_50']:.3f} | {mixed['map_50']:.3f} | {small['passes']} | {small['cpu_ms']}"
    assert f"| {named(small['tile_size'])} | {figures} |" in LINES


@pytest.mark.parametrize("rule", SMALL["rules"])
def test_what_rules_of_merging_give_stands_in_the_page(rule: str) -> None:
    small, mixed = (kind["rules"][rule]["map_50"] for kind in (SMALL, MIXED))
    assert f"| {rule} | {small:.3f} | {mixed:.3f} |" in LINES


@pytest.mark.parametrize("option", DetectionOptions.model_fields)
def test_every_option_has_its_row(option: str) -> None:
    row = next(line for line in LINES if line.startswith(f"| `{option}` |"))
    default = DetectionOptions.model_fields[option].default
    assert {"class_thresholds": "none", "class_filter": "all"}.get(option, str(default)) in row.replace("`", "")


def test_the_limit_on_tiles_is_told() -> None:
    assert any(f"may have {ImageLimits().max_tiles} tiles" in line for line in LINES)
