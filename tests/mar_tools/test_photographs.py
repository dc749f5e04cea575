import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fakes import EXACT_16, RED, png

from mar_tools.command_line import ROOT
from mar_tools.images import PHOTOGRAPHS, Split, choose_images, find_images, load_encoded_images
from mar_tools.models.example_pixels import example_pixels, is_fixed_size, load_photographs, load_pixels
from vision_serving.config import ImageLimits, PreprocessingConfig
from vision_serving.errors import ConfigError
from vision_serving.pictures.decoding import decode_image

EXACT = PreprocessingConfig.model_validate(EXACT_16)
BOUNDED = PreprocessingConfig.model_validate({"resize": {"mode": "bounded_edges", "size": 64, "max_size": 128}})


def scene_of(photograph: Path) -> str:
    return photograph.stem.partition("_")[2]


def test_the_first_photographs_show_different_scenes_in_different_shapes() -> None:
    first = choose_images(None, 7)
    assert len({scene_of(path) for path in first}) == 7
    shapes = {image.shape[0] / image.shape[1] for image in load_photographs(7)}
    assert min(shapes) < 0.5
    assert max(shapes) > 1.3


def test_every_photograph_is_another_colour_picture() -> None:
    photographs = load_photographs(42)
    assert len(photographs) == 42
    assert len({photograph.tobytes() for photograph in photographs}) == 42
    assert all(np.ptp(photograph.astype(int), axis=2).mean() > 3 for photograph in photographs)


def test_what_calibrates_does_not_verify() -> None:
    splits: tuple[Split, ...] = ("calibration", "verification")
    parts = [choose_images(None, 100, split) for split in splits]
    assert [len(part) for part in parts] == [24, 18]
    scenes = [{scene_of(path) for path in part} for part in parts]
    assert [len(found) for found in scenes] == [4, 3]
    assert scenes[0] & scenes[1] == set(), "other views of a scene would not be other pictures"


def test_a_folder_of_ones_own_is_taken_whole(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(png(RED))
    assert len(choose_images(tmp_path, 10, "verification")) == 2


def test_the_script_makes_the_photographs_that_are_there(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "examples" / "make_photographs.py"), "--output", str(tmp_path)]
    subprocess.run(command, check=True)
    made, kept = find_images(tmp_path), find_images(PHOTOGRAPHS)
    assert [path.name for path in made] == [path.name for path in kept]
    for again, before in zip(made, kept, strict=True):
        pixels = [decode_image(path.read_bytes(), ImageLimits()).astype(int) for path in (again, before)]
        assert abs(pixels[0] - pixels[1]).mean() < 1  # JPEG libraries round differently


def test_images_are_found_in_subfolders_in_order(tmp_path: Path) -> None:
    for folder in ("b", ".venv"):
        (tmp_path / folder).mkdir()
    for name in ("c.PNG", "b/a.jpg", "a.webp", "notes.txt", ".hidden.png", ".venv/icon.png"):
        (tmp_path / name).write_bytes(png(RED))
    assert [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)] == ["a.webp", "b/a.jpg", "c.PNG"]
    assert find_images(tmp_path / "c.PNG") == [tmp_path / "c.PNG"]
    assert len(load_encoded_images(tmp_path, 2)) == 2


@pytest.mark.parametrize(("name", "message"), [("", "no images in this folder"), ("none", "no such file or folder")])
def test_where_no_images_are_it_is_said(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find_images(tmp_path / name)


@pytest.mark.parametrize(("config", "fixed"), [(EXACT, True), (BOUNDED, False)], ids=["exact", "bounded"])
def test_example_pixels_are_a_batch_of_two(config: PreprocessingConfig, fixed: bool) -> None:
    assert is_fixed_size(config) == fixed
    pixels = example_pixels(config)
    assert pixels.shape == ((2, 16, 16, 3) if fixed else (2, 256, 320, 3))
    assert not (pixels[0] == pixels[1]).all()


@pytest.mark.parametrize(
    ("config", "shape"), [(EXACT, (3, 16, 16, 3)), (BOUNDED, (3, 64, 85, 3))], ids=["exact", "bounded"]
)
def test_photographs_become_one_batch_of_model_pixels(config: PreprocessingConfig, shape: tuple[int, ...]) -> None:
    assert load_pixels(3, config).shape == shape
