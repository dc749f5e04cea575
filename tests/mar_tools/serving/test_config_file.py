from pathlib import Path

import pytest

from mar_tools.command_line import ROOT
from mar_tools.serving.config_file import PATHS, model_section, with_absolute_paths, with_model, with_values
from vision_serving.errors import ConfigError
from vision_serving.worker.server_settings import read_model, read_properties

TEXT = """# a comment with models=1
a=1
models={\\
  "digits": {\\
    "1.0": {"batchSize": 8}\\
  }\\
}
! b=2
c = 3
"""


def test_other_lines_stay_as_they_are() -> None:
    changed = with_values(TEXT, {"a": "2", "d": "new"})
    assert changed.splitlines() == [*TEXT.replace("a=1\n", "a=2\n").splitlines(), "d=new"]


def test_a_value_of_several_lines_is_replaced_whole() -> None:
    changed = with_values(TEXT, {"models": "{\n}"})
    assert changed.splitlines() == ["# a comment with models=1", "a=1", "models={\\", "}", "! b=2", "c = 3"]


def test_a_key_that_stands_there_twice_is_left_once() -> None:
    assert with_values("a=1\nb=2\na=3\n", {"a": "4"}) == "a=4\nb=2\n"


def test_settings_of_a_version_are_merged_into_the_models() -> None:
    changed = with_model(TEXT, "digits", "1.0", {"minWorkers": 2})
    changed = with_model(changed, "new", "2.0", {"batchSize": 4})
    assert model_section(changed, "digits", "1.0") == {"batchSize": 8, "minWorkers": 2}
    assert read_model(changed, "new") == {"2.0": {"batchSize": 4}}
    assert read_properties(changed)["c"] == "3"


def test_the_shipped_file_keeps_its_meaning() -> None:
    text = (ROOT / "config.properties").read_text()
    section = model_section(text, "digits", "1.0")
    changed = with_model(text, "digits", "1.0", section)
    assert read_model(changed, "digits") == read_model(text, "digits")
    assert read_model(changed, "digits_detection") == read_model(text, "digits_detection")
    assert {**read_properties(changed), "models": ""} == {**read_properties(text), "models": ""}
    assert with_model(changed, "digits", "1.0", section) == changed


def test_models_that_are_no_json_are_refused() -> None:
    with pytest.raises(ConfigError, match="`models` is not valid JSON"):
        with_model("models={", "digits", "1.0", {})
    with pytest.raises(ConfigError, match=r"expected settings of digits 1\.0 in `models`, got 5"):
        model_section('models={"digits": {"1.0": 5}}', "digits", "1.0")


def test_only_line_feeds_end_lines() -> None:
    text = "# a\u2028b=1\nc=\x0c2\n"
    assert with_values(text, {"d": "3"}) == text + "d=3\n"
    assert read_properties(text).keys() == {"c"}


@pytest.mark.parametrize("key", PATHS)
def test_a_copy_names_the_files_of_its_original(key: str, tmp_path: Path) -> None:
    text = f"# paths\nmodel_store=model_store\n{key}=a folder/a file\n"
    assert with_absolute_paths(text, tmp_path) == text.replace("a folder", f"{tmp_path}/a folder")
    absolute = f"{key}=/etc/vision/a\n"
    assert with_absolute_paths(absolute, tmp_path) == absolute


def test_a_copy_trusts_the_keys_of_its_original(tmp_path: Path) -> None:
    text = with_absolute_paths("vision_trusted_keys=keys/*.pub, /etc/vision/a.pub\n", tmp_path)
    assert text == f"vision_trusted_keys={tmp_path}/keys/*.pub,/etc/vision/a.pub\n"
    assert with_absolute_paths("vision_trusted_keys=\n", tmp_path) == "vision_trusted_keys=\n"
