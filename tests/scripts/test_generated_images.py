from pathlib import Path

import numpy as np
import pytest
from fakes import EXACT_16, RED, png

from mar_tools.images import (
    GENERATED_SIZES_HW,
    example_pixels,
    find_images,
    generate_image,
    is_fixed_size,
    load_encoded_images,
)
from vision_serving.config import ImageLimits, PreprocessingConfig
from vision_serving.errors import ConfigError
from vision_serving.images import decode_image

EXACT = PreprocessingConfig.model_validate(EXACT_16)
BOUNDED = PreprocessingConfig.model_validate({"resize": {"mode": "bounded_edges", "size": 64, "max_size": 128}})


def test_a_generated_image_depends_on_its_seed_alone() -> None:
    assert (generate_image(1, (40, 60)) == generate_image(1, (40, 60))).all()
    assert (generate_image(1, (40, 60)) != generate_image(2, (40, 60))).any()


def test_a_generated_image_uses_the_range_of_levels() -> None:
    image = generate_image(0, (120, 160))
    assert image.shape == (120, 160, 3)
    assert image.dtype == np.uint8
    assert image.std() > 30


def test_generated_images_have_several_sizes() -> None:
    images = [decode_image(data, ImageLimits()) for data in load_encoded_images(None, 5)]
    assert [image.shape[:2] for image in images] == [*GENERATED_SIZES_HW, GENERATED_SIZES_HW[0]]


def test_images_are_found_in_subfolders_in_order(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("c.PNG", "b/a.jpg", "a.webp", "notes.txt"):
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
