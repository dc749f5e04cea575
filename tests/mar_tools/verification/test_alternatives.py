"""On labelled pictures a recipe with another preprocessing than the training's is refused by name, and floors hold."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import write_tiny_recipe
from fakes import encode_image

from mar_tools.building.table import describe_reference
from mar_tools.exporting.export import export_model
from mar_tools.models.checkpoints import load_checkpoint
from mar_tools.models.recipes import read_recipe
from mar_tools.verification.alternatives import Attempt, count_needed, list_normalisations
from mar_tools.verification.gate import require_verified, verify_export
from vision_serving.config import PreprocessingConfig
from vision_serving.errors import ConfigError

NETWORK = """
import torch
from torch import nn


class Brightness(nn.Module):
    '''Dark below the mean of its training, bright above it; red before blue.'''

    def __init__(self, by):
        super().__init__()
        self.weights = nn.Parameter(torch.tensor({"brightness": [1.0, 1.0, 1.0], "redness": [1.0, 0.0, -1.0]}[by]))

    def forward(self, images):
        found = (images.mean(dim=(2, 3)) * self.weights).sum(dim=1)
        return torch.stack((-found, found), dim=1)
"""
COLOURS = {"brightness": ((70, 70, 70), (190, 190, 190)), "redness": ((40, 90, 160), (160, 90, 40))}
EXACT_8 = {"resize": {"mode": "exact", "size": [8, 8]}}
TRAINED = {"mean": [0.5] * 3, "std": [0.5] * 3}


def write_pictures(folder: Path, by: str, swapped: int = 0, count: int = 12) -> None:
    """Write noisy pictures, `count` of each class. swapped: how many of each lie in the other folder."""
    generator = np.random.default_rng(0)
    for class_id, colour in enumerate(COLOURS[by]):
        for number in range(count):
            label = ("no", "yes")[class_id if number >= swapped else 1 - class_id]
            pixels = np.clip(np.array(colour) + generator.integers(-20, 20, (8, 8, 3)), 0, 255).astype(np.uint8)
            (folder / label).mkdir(parents=True, exist_ok=True)
            (folder / label / f"{class_id}{number}.png").write_bytes(encode_image(pixels))


def verify(
    folder: Path, by: str, preprocessing: dict[str, Any], swapped: int = 0, count: int = 12, **bounds: Any
) -> dict[str, Any]:
    """Build the reference of a network that was trained with TRAINED, by a recipe that says something."""
    path = write_tiny_recipe(
        folder,
        model={
            "source": "python",
            "file": "network.py",
            "class": "Brightness",
            "arguments": {"by": by},
            "weights": "network.pth",
        },
        preprocessing={**EXACT_8, **preprocessing},
        verification={"images": "pictures", "labels": "folders", **bounds},
    )
    (folder / "network.py").write_text(NETWORK)
    (folder / "labels.json").write_text('["no", "yes"]')
    scope: dict[str, Any] = {}
    exec(compile(NETWORK, "network.py", "exec"), scope)
    torch.save(scope["Brightness"](by).state_dict(), folder / "network.pth")
    write_pictures(folder / "pictures", by, swapped, count)
    recipe = read_recipe(path)
    return verify_export(export_model(recipe, load_checkpoint(recipe), "eager", "fp32", folder / "exports"))


@pytest.mark.parametrize(
    ("by", "preprocessing", "words"),
    [
        ("brightness", {"mean": [0.0] * 3, "std": [1.0] * 3}, "is 0.5 on 24 labelled pictures"),
        ("brightness", {"mean": [127.5] * 3, "std": [127.5] * 3}, "and 1 with mean and std divided by 255"),
        ("redness", {**TRAINED, "color_order": "bgr"}, "is 0 on 24 labelled pictures"),
    ],
    ids=["not normalised", "numbers of 255", "colours"],
)
def test_a_wrong_preprocessing_is_refused_with_the_right_one(
    tmp_path: Path, by: str, preprocessing: dict[str, Any], words: str
) -> None:
    report = verify(tmp_path, by, preprocessing)
    assert not report["passed"]
    assert words in report["failures"][0]
    with pytest.raises(ConfigError, match="another preprocessing is better"):
        require_verified(tmp_path / "exports" / "tiny_classification" / "eager-fp32")
    stated = report["failures"][0].rpartition("`preprocessing: ")[2].rstrip("`")
    PreprocessingConfig.model_validate(yaml.safe_load(stated))  # as a recipe takes it


@pytest.mark.parametrize("by", COLOURS)
def test_the_right_preprocessing_passes_and_the_others_are_told(tmp_path: Path, by: str) -> None:
    report = verify(tmp_path, by, TRAINED, min_accuracy=0.9)
    assert report["passed"], report["failures"]
    own, *others = report["alternatives"]
    assert own["name"] == "the recipe's own"
    assert {each["name"] for each in others} >= {"mean 0 and std 1", "bgr colours", "a letterbox"}
    lines = describe_reference(report)
    assert lines[0] == "reference: top-1 accuracy 1 on 24 labelled pictures, at least 0.9 asked"
    assert lines[1].startswith("other preprocessings: top-1 accuracy 1 on 24 pictures with the recipe's own; ")


def test_few_pictures_give_no_advice_but_say_how_many_would(tmp_path: Path) -> None:
    """Half of four pictures turn: 2 of 4 may be chance, and 9 of 18 is three deviations."""
    report = verify(tmp_path, "brightness", {"mean": [0.0] * 3, "std": [1.0] * 3}, count=2, min_accuracy=0.9)
    told = report["failures"][-1]
    assert told.startswith("4 labelled pictures do not tell whether another preprocessing is better; about 18 of")
    assert "label so many (top-1 accuracy is 0.5 on 4 labelled pictures with the recipe's preprocessing, and 1" in told
    assert "`preprocessing:" not in told
    assert report["reading"]["warnings"][0] == told


@pytest.mark.parametrize(
    ("gained", "lost", "of", "needed"),
    [(9, 0, 9, 9), (9, 0, 18, 18), (1, 0, 2, 18), (12, 2, 20, 26), (4, 0, 64, 144)],
    ids=["all of nine", "half", "one of two", "both ways", "few of many"],
)
def test_as_many_pictures_are_needed_as_make_three_deviations(gained: int, lost: int, of: int, needed: int) -> None:
    own = (False,) * gained + (True,) * lost + (True,) * (of - gained - lost)
    best = (True,) * gained + (False,) * lost + (True,) * (of - gained - lost)
    before, after = (Attempt("", PreprocessingConfig.model_validate(EXACT_8), {}, hits) for hits in (own, best))
    assert count_needed(before, after, (gained - lost) / of) == needed


@pytest.mark.parametrize(("gain", "needed"), [(0.4, 4), (0.1, 64), (0.05, 256)])
def test_a_measure_without_single_pictures_needs_more_of_them_for_less(gain: float, needed: int) -> None:
    attempt = Attempt("", PreprocessingConfig.model_validate(EXACT_8), {})
    assert count_needed(attempt, attempt, gain) == needed


def test_an_owner_may_say_that_the_preprocessing_is_right(tmp_path: Path) -> None:
    report = verify(tmp_path, "redness", {**TRAINED, "color_order": "bgr"}, allow=["preprocessing"])
    assert report["passed"], report["failures"]
    assert "another preprocessing is better" in report["reading"]["warnings"][0]


def test_a_floor_is_asked_of_the_reference_itself(tmp_path: Path) -> None:
    report = verify(tmp_path, "brightness", TRAINED, swapped=3, min_accuracy=0.9)
    assert report["failures"][:1] == ["accuracy of the reference itself is 0.75, at least 0.9 asked"]


def test_grey_networks_have_alternatives_of_one_channel() -> None:
    own = PreprocessingConfig.model_validate(
        {"resize": {"mode": "exact", "size": [8, 8]}, "channels": 1, "mean": [0.5], "std": [0.5]}
    )
    checkpoint: Any = type("Checkpoint", (), {"published": None})
    found = [preprocessing for _, preprocessing in list_normalisations(own, checkpoint)]
    assert len(found) == 4
    assert all(len(each.mean) == len(each.std) == 1 for each in found)
