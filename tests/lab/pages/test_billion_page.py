"""A billion pictures: the arithmetic of the page, with figures whose results are plain."""

from pathlib import Path

import orjson
import pytest

from lab.pages.billion import Work, read_values
from lab.pages.rendering import PAGES, render_page


def test_a_picture_of_three_point_six_milliseconds_takes_a_core_hour_a_million() -> None:
    work = Work("any", 3.6, "")
    assert work.core_hours_a_million == pytest.approx(1.0)
    assert work.hours == pytest.approx(1.0), "1,000 cores for 1,000 millions"


def test_shards_and_cores_follow_from_the_rate() -> None:
    work = Work("any", 2.0, "")
    assert work.images_per_s == 500
    assert work.rows_a_shard == 2500
    assert work.shards_a_run == 4000
    assert work.cores_a_prefix == 11
    assert work.cores_of_driver(10_000) == 20


def test_models_that_ray_did_not_run_have_its_overhead_on_top(tmp_path: Path) -> None:
    """Digits by Ray at 400 images/s a core and 500 in P: half a millisecond, which each other model has too."""
    for path in PAGES["billion"].glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    change(tmp_path / "offline.json", p_process_a_core_images_per_s=1000.0)
    change(tmp_path / "ray.json", ray_images_per_s=800.0)
    digits, resnet, *_ = read_values(tmp_path)["works"]
    before = read_values(PAGES["billion"])
    assert digits.core_ms == pytest.approx(2.5)
    assert resnet.core_ms - before["works"][1].core_ms == pytest.approx(0.5 - before["overhead_ms"])
    assert "| digits, 28 x 28 | 400 | 0.69 | 0.69 | 0.069 |" in render_page("billion", tmp_path)


def change(path: Path, **figures: float) -> None:
    document = orjson.loads(path.read_bytes())
    document["rounds"] = [{**entry, **figures} for entry in document["rounds"]]
    path.write_bytes(orjson.dumps(document))
