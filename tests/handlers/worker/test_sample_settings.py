"""What config.properties may say of samples, and what it is told otherwise."""

import json
from pathlib import Path
from typing import Any

import pytest

from mar_tools.serving.archive_choice import check_models
from mar_tools.serving.setting_names import check_settings
from vision_serving.errors import ConfigError
from vision_serving.worker.sample_settings import (
    MEBI,
    SampleBounds,
    SampleSettings,
    configured_samples,
    model_folder,
    read_sample_bounds,
    samples_folder,
)
from vision_serving.worker.server_settings import SETTINGS_VARIABLE


def models_of(**settings: Any) -> str:
    return f"models={json.dumps({'digits': {'1.0': settings}})}\n"


@pytest.mark.parametrize("share", ["0.1", True, -0.1, 1.5, float("inf"), None, [1]])
def test_a_share_that_is_none_is_refused_at_start(share: object) -> None:
    with pytest.raises(ConfigError, match=r"digits 1\.0: sample_share: expected a number from 0, for none, to 1"):
        check_models(models_of(sample_share=share))


@pytest.mark.parametrize("share", [0, 1, 0.01])
def test_a_share_may_be_whole_or_a_part(share: float) -> None:
    check_models(models_of(sample_share=share))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sample_shares": 0.1}, r"unknown key 'sample_shares'; did you mean 'sample_share'\?"),
        ({"sampleShare": 0.1}, r"unknown key 'sampleShare'; did you mean 'sample_share'\?"),
        ({"sample_share": 1, "sample_picture": True}, r"did you mean 'sample_pictures'\?"),
        ({"sample_share": 1, "sample_pictures": "yes"}, "sample_pictures: expected true or false, got 'yes'"),
        ({"sample_pictures": True}, "sample_pictures keeps none without a sample_share; add one"),
    ],
)
def test_what_nobody_reads_is_one_line_that_says_what_is_meant(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        check_models(models_of(**settings))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"vision_samples_mb": "0"}, "vision_samples_mb: expected a whole number from 1"),
        ({"vision_samples_days": "1.5"}, "vision_samples_days: expected a whole number from 1 to 3650, got '1.5'"),
        ({"vision_sample_mb": "5"}, r"unknown key 'vision_sample_mb'; did you mean 'vision_samples_mb'\?"),
    ],
)
def test_bounds_that_are_none_are_refused_at_start(values: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_settings(values)


def test_without_a_line_a_model_has_64_mib_and_30_days() -> None:
    assert read_sample_bounds({}) == SampleBounds(64 * MEBI, 30)


def test_a_worker_reads_those_of_its_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config.properties"
    text = models_of(sample_share=0.5, sample_pictures=True)
    config.write_text(f"{text}vision_samples_mb=1\nvision_samples_days=2\nvision_state=state\n")
    monkeypatch.setenv(SETTINGS_VARIABLE, str(config))
    folder = tmp_path / "state" / "samples" / "digits"
    assert configured_samples("digits", "1.0") == SampleSettings(folder, 0.5, True, SampleBounds(MEBI, 2))
    assert configured_samples("digits", "2.0").share == 0
    assert samples_folder(config) == folder.parent


@pytest.mark.parametrize("name", ["..", ".", "../x", "a/b", ".hidden", "%2E"])
def test_a_model_of_any_name_has_a_folder_of_its_own(name: str, tmp_path: Path) -> None:
    folder = model_folder(tmp_path, name)
    assert folder.parent == tmp_path
    assert not folder.name.startswith(".")
