"""The digits in the repository are those that the committed command draws."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mar_tools.command_line import ROOT
from mar_tools.images import find_images
from vision_serving.config import ImageLimits
from vision_serving.pictures.decoding import decode_image

EXAMPLES = ROOT / "examples"
ANNOTATIONS = Path("digits_detection") / "heldout" / "annotations.json"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("heldout")
    subprocess.run([sys.executable, str(EXAMPLES / "make_pictures.py"), "--output", str(output)], check=True)
    return output


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("digits_classification/heldout", 200),
        ("digits_classification/calibration", 64),
        ("digits_detection/heldout", 40),
        ("digits_detection/calibration", 24),
    ],
)
def test_the_pictures_are_drawn_again_alike(drawn: Path, name: str, count: int) -> None:
    folders = [folder / name for folder in (drawn, EXAMPLES)]
    again, kept = (find_images(folder) for folder in folders)
    assert [path.relative_to(folders[0]) for path in again] == [path.relative_to(folders[1]) for path in kept]
    assert len(kept) == count
    for pair in list(zip(again, kept, strict=True))[::10]:
        pixels = [decode_image(path.read_bytes(), ImageLimits()).astype(int) for path in pair]
        assert abs(pixels[0] - pixels[1]).mean() < 1  # JPEG libraries round differently


def test_the_boxes_are_the_same(drawn: Path) -> None:
    assert json.loads((drawn / ANNOTATIONS).read_text()) == json.loads((EXAMPLES / ANNOTATIONS).read_text())
