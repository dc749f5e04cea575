"""What a compression begins with: a network that is judged as it is served, and pictures that may train."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
import yaml
from safetensors.torch import save_file

from mar_tools.compressing.compression import read_teacher
from mar_tools.compressing.handing_over import link_pictures
from mar_tools.compressing.originals import Original, read_data, read_original
from mar_tools.models.recipes import read_recipe
from vision_serving.errors import ConfigError

SIDE = 16
NETWORK = """
import torch
from torch import nn

class Mean(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, images):
        mean = self.scale * images.mean((1, 2, 3))
        return torch.stack((mean, -mean), 1)
"""
PREPARED = {"resize": {"mode": "exact", "size": [SIDE, SIDE]}, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}


def draw(path: Path, level: int, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).normal(level, 10, (SIDE, SIDE, 3)).clip(0, 255).astype(np.uint8)
    PIL.Image.fromarray(pixels).save(path)


def write(folder: Path, **more: Any) -> Path:
    """Write the recipe of a network that tells bright from dark, with four pictures to judge it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mean.py").write_text(NETWORK)
    save_file({"scale": torch.ones(1)}, folder / "w.safetensors")
    (folder / "labels.json").write_text('["bright", "dark"]')
    for number in range(4):
        label, level = (("bright", 220), ("dark", 30))[number % 2]
        draw(folder / "heldout" / label / f"{number}.png", level, number)
    recipe = {
        "name": "mean", "task": "classification",
        "model": {"source": "python", "file": "mean.py", "class": "Mean", "weights": "w.safetensors"},
        "labels": "labels.json", "preprocessing": PREPARED,
        "verification": {"images": "heldout", "labels": "folders"}, **more,
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder / "recipe.yaml"


def read(recipe: Path) -> Original:
    return read_original(read_recipe(recipe), "cpu")


def draw_data(folder: Path) -> Path:
    for number in range(20):
        label, level = (("bright", 220), ("dark", 30))[number % 2]
        draw(folder / label / f"{number:02}.png", level, 100 + number)
    return folder


@pytest.mark.parametrize(("background", "accuracy"), [([0, 0, 0], 1.0), ([255, 255, 255], 0.0)])
def test_an_original_is_judged_with_the_colours_of_its_recipe(
    background: list[int], accuracy: float, tmp_path: Path
) -> None:
    recipe = write(tmp_path, colours={"background": background})
    for path in (tmp_path / "heldout").rglob("*.png"):
        path.unlink()
    PIL.Image.new("RGBA", (SIDE, SIDE), (255, 255, 255, 0)).save(tmp_path / "heldout" / "dark" / "clear.png")
    original = read(recipe)
    assert original.accuracy == accuracy


def test_pictures_that_judge_do_not_train_and_too_few_others_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    original = read(write(tmp_path / "m"))
    data = draw_data(tmp_path / "data")
    (data / "dark" / "judge.png").write_bytes((tmp_path / "m" / "heldout" / "dark" / "1.png").read_bytes())
    split = read_data(data, original, tmp_path / "out", 0, resume=False)
    assert "judge.png" not in {picture.path.name for pictures in split.values() for picture in pictures}
    for path in data.glob("*/??.png"):
        shutil.copy(path, tmp_path / "m" / "heldout" / path.parent.name / f"more{path.name}")
    with pytest.raises(ConfigError, match="2 of 2 classes have no picture for the part 'train'"):
        read_data(data, read(tmp_path / "m" / "recipe.yaml"), tmp_path / "out", 0, resume=False)
    assert "are those that the recipe verifies with: they are left out" in capsys.readouterr().err


def test_the_division_beside_the_recipe_comes_before_that_of_an_earlier_result(tmp_path: Path) -> None:
    data, original = draw_data(tmp_path / "data"), read(write(tmp_path / "m"))
    other = read_data(data, original, tmp_path / "m", 0, resume=False)  # as its training divided them
    read_data(data, read(write(tmp_path / "n")), tmp_path / "out", 5, resume=False)  # of another original
    again = read_data(data, original, tmp_path / "out", 7, resume=False)
    assert again == other
    assert read_data(data, original, tmp_path / "out", 7, resume=True) == other


def test_a_network_with_the_values_of_int8_is_not_compressed_further(tmp_path: Path) -> None:
    recipe = write(tmp_path)
    values = yaml.safe_load(recipe.read_text())
    values["model"]["fake_quantization"] = "affine"
    recipe.write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match="compress the network that it was made of"):
        read(recipe)


def test_a_teacher_needs_no_pictures_of_its_own(tmp_path: Path) -> None:
    original = read(write(tmp_path / "m"))
    teacher = read_teacher(write(tmp_path / "teacher", verification={}), original, "cpu")
    assert teacher.graph(torch.zeros(1, SIDE, SIDE, 3, dtype=torch.uint8))["logits"].argmax(1).tolist() == [1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "detection", "labels": None}, "it has task detection; expected a trained classifier"),
        ({"labels": "other.json"}, "expected the same labels in the same order"),
    ],
)
def test_what_cannot_teach_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    original = read(write(tmp_path / "m"))
    recipe = write(tmp_path / "teacher")
    (tmp_path / "teacher" / "other.json").write_text('["dark", "bright"]')
    values = {**yaml.safe_load(recipe.read_text()), "verification": {}, **change}
    recipe.write_text(yaml.safe_dump({key: value for key, value in values.items() if value is not None}))
    with pytest.raises(ConfigError, match=message):
        read_teacher(recipe, original, "cpu")


def test_pictures_behind_symbolic_links_are_in_the_result(tmp_path: Path) -> None:
    draw(tmp_path / "store" / "a.png", 100, 0)
    (tmp_path / "m" / "heldout" / "dark").mkdir(parents=True)
    (tmp_path / "m" / "heldout" / "dark" / "a.png").symlink_to("../../../store/a.png")
    link_pictures(tmp_path / "m" / "heldout", tmp_path / "deep" / "er" / "out" / "heldout")
    found = tmp_path / "deep" / "er" / "out" / "heldout" / "dark" / "a.png"
    assert found.read_bytes() == (tmp_path / "store" / "a.png").read_bytes()


def test_a_result_within_its_pictures_does_not_hold_itself(tmp_path: Path) -> None:
    draw(tmp_path / "dark" / "a.png", 100, 0)
    link_pictures(tmp_path, tmp_path / "half" / "heldout")
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*.png"))] == [
        "dark/a.png",
        "half/heldout/dark/a.png",
    ]
