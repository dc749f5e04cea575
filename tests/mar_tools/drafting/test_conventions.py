"""What a file does not say is written as a family of programs has it, where the user says which."""

from pathlib import Path

import pytest
import torch
from conftest import RunHere
from torch import nn

from mar_tools.drafting.conventions import LIKE, apply_convention, find_hints
from mar_tools.drafting.drafts import Draft, Hint, assume, without_notes
from mar_tools.models.recipes import read_recipe
from vision_serving.config import PreprocessingConfig
from vision_serving.errors import ConfigError

LETTERBOX = {"resize": {"mode": assume("letterbox", "usual"), "size": [320, 320]}, "antialias": False}
CROP = {"resize": {"mode": "shortest_edge", "size": 256}, "crop": [224, 224]}


def test_the_command_offers_every_family(run_here: RunHere) -> None:
    assert f"--like {{{','.join(LIKE)}}}" in run_here("new_recipe.py", "--help").stdout


def test_pictures_go_to_a_network_as_opencv_reads_them() -> None:
    draft = apply_convention(Draft({"name": "x", "preprocessing": LETTERBOX}, hints=(Hint("opencv", "why"),)), "opencv")
    found = PreprocessingConfig.model_validate(without_notes(draft.recipe["preprocessing"]))
    assert (found.color_order, found.resize.pad_place, found.resize.pad_value) == ("bgr", "top_left", 0)
    assert (found.antialias, draft.hints) == (False, ())


def test_without_a_letterbox_there_is_nothing_to_fill() -> None:
    exact = {"resize": {"mode": "exact", "size": [800, 608]}}
    (hint,) = find_hints("detection", exact)
    assert "black" not in hint.why
    changed = without_notes(apply_convention(Draft({"preprocessing": exact}), hint.like).recipe["preprocessing"])
    assert changed == {**exact, "color_order": "bgr"}


def test_lines_of_text_have_one_height() -> None:
    changed = without_notes(apply_convention(Draft({"preprocessing": CROP}), "paddleocr").recipe["preprocessing"])
    found = PreprocessingConfig.model_validate(changed)
    assert (found.crop, found.resize.mode, found.color_order, found.mean) == (None, "fixed_height", "bgr", (0.5,) * 3)


@pytest.mark.parametrize(
    ("task", "preprocessing", "lines", "likes"),
    [
        ("detection", LETTERBOX, False, ["opencv"]),
        ("detection", {**LETTERBOX, "color_order": assume("bgr", "surest")}, False, []),
        ("classification", CROP, True, ["paddleocr"]),
        ("classification", CROP, False, []),
    ],
    ids=["detector", "blue first already", "lines of Paddle's", "another classifier"],
)
def test_a_hint_is_given_where_it_changes_something(
    task: str, preprocessing: dict[str, object], lines: bool, likes: list[str]
) -> None:
    assert [hint.like for hint in find_hints(task, preprocessing, lines)] == likes


def test_a_program_whose_preprocessing_is_assumed_takes_a_family(tmp_path: Path, run_here: RunHere) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)).eval()
    torch.jit.trace(network, torch.rand(1, 3, 32, 32)).save(str(tmp_path / "doors.pt"))  # type: ignore[no-untyped-call]
    for like, order in {"opencv": "bgr", "paddleocr": "bgr"}.items():
        written = run_here("new_recipe.py", tmp_path / "doors.pt", "--like", like, "--force")
        assert written.returncode == 0, written.stderr
        found = read_recipe(tmp_path / "doors.yaml").preprocessing
        assert isinstance(found, PreprocessingConfig)
        assert (found.color_order, found.resize.mode == "fixed_height") == (order, like == "paddleocr")


def test_a_file_that_states_its_preprocessing_needs_no_family() -> None:
    with pytest.raises(ConfigError, match="give no --like"):
        apply_convention(Draft({"preprocessing": "auto"}), "opencv")
