"""Independent scores are measured where it is known which labels a picture shows, and their floor holds."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import write_tiny_recipe
from fakes import encode_image

from mar_tools.building.table import describe_reference
from mar_tools.exporting.export import export_model
from mar_tools.exporting.export_folders import read_manifest
from mar_tools.models.checkpoints import load_checkpoint
from mar_tools.models.recipes import read_recipe
from mar_tools.reporting.by_class import measure_by_class
from mar_tools.verification.gate import verify_export
from mar_tools.verification.kept_answers import find_answers
from mar_tools.verification.labelled import read_verification_images
from vision_serving.config import read_handler_config
from vision_serving.errors import ConfigError

NETWORK = """
import torch
from torch import nn


class Colours(nn.Module):
    '''Bright pictures, and pictures that are more red than blue.'''

    def __init__(self):
        super().__init__()
        self.weights = nn.Parameter(torch.tensor([[4.0, 4.0, 4.0], [8.0, 0.0, -8.0]]))

    def forward(self, images):
        return images.mean(dim=(2, 3)) @ self.weights.T
"""
COLOURS = {"": (40, 60, 90), "bright": (150, 180, 210), "red": (90, 60, 40), "bright|red": (210, 180, 150)}


def write_pictures(folder: Path, wrong: int) -> None:
    """Six noisy pictures of each kind, and labels.csv. wrong: how many of each are said to be the opposite."""
    generator = np.random.default_rng(0)
    lines = ["file,labels"]
    (folder / "pictures").mkdir(parents=True)
    opposites = dict(zip(COLOURS, reversed(COLOURS), strict=True))
    for kind, (labels, colour) in enumerate(COLOURS.items()):
        for number in range(6):
            pixels = np.clip(np.array(colour) + generator.integers(-20, 20, (8, 8, 3)), 0, 255).astype(np.uint8)
            (folder / "pictures" / f"{kind}{number}.png").write_bytes(encode_image(pixels))
            lines.append(f"{kind}{number}.png,{labels if number >= wrong else opposites[labels]}")
    (folder / "labels.csv").write_text("\n".join(lines))


def export(folder: Path, backend: str, wrong: int = 0, **bounds: Any) -> Path:
    if not (folder / "pictures").exists():
        write_pictures(folder, wrong)
    path = write_tiny_recipe(
        folder,
        model={
            "source": "python",
            "file": "network.py",
            "class": "Colours",
            "weights": "network.pth",
            "output": {"activation": "sigmoid"},
        },
        preprocessing={"resize": {"mode": "exact", "size": [8, 8]}, "mean": [0.5] * 3, "std": [0.5] * 3},
        verification={"images": "pictures", "labels": "labels.csv", **bounds},
    )
    (folder / "network.py").write_text(NETWORK)
    (folder / "labels.json").write_text('["bright", "red"]')
    torch.save({"weights": torch.tensor([[4.0, 4.0, 4.0], [8.0, 0.0, -8.0]])}, folder / "network.pth")
    recipe = read_recipe(path)
    return export_model(recipe, load_checkpoint(recipe), backend, "fp32", folder / "exports")


def test_reference_and_candidate_are_measured_by_their_average_precision(tmp_path: Path) -> None:
    report = verify_export(export(tmp_path, "eager", min_map=0.9))
    assert report["failures"] == []
    assert report["accuracy"] == {"reference": {"map": 1.0}, "candidate": {"map": 1.0}}
    assert describe_reference(report)[0] == "reference: mAP 1 on 24 labelled pictures, at least 0.9 asked"
    report = verify_export(export(tmp_path, "torchscript", min_map=0.9))
    assert report["failures"] == []
    assert report["measured"]["map"] == 1.0
    assert report["measured"]["accuracy_drop"] == 0.0


def test_a_floor_holds_for_the_reference(tmp_path: Path) -> None:
    report = verify_export(export(tmp_path, "eager", wrong=2, min_map=0.9))
    share = report["accuracy"]["reference"]["map"]
    assert 0.5 < share < 0.9
    assert f"mAP of the reference itself is {share:.4g}, at least 0.9 asked" in report["failures"][0]


def test_a_floor_of_another_measure_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"bound 'min_accuracy' does not fit this model; measured were .*'map'"):
        verify_export(export(tmp_path, "eager", min_accuracy=0.9))


def test_the_classes_of_a_report_have_the_same_mean(tmp_path: Path) -> None:
    folder = export(tmp_path, "eager", wrong=1, allow=["preprocessing"])
    report = verify_export(folder)
    config = read_handler_config(folder / "model-config.yaml")
    images = read_verification_images(read_manifest(folder).verification, config, ["bright", "red"])
    answers = find_answers(folder, report["artifact_sha256"], images.paths)
    assert answers is not None
    assert images.truth is not None
    classes = measure_by_class(answers, images.truth).classes
    assert [each.count for each in classes] == [12, 12]
    mean = sum(each.share for each in classes) / 2
    assert mean == pytest.approx(report["accuracy"]["reference"]["map"], abs=1e-4)  # shares have four digits
    assert mean < 1
