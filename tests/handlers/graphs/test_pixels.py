"""The channels that a network takes, beside those of the libraries that trained it."""

import numpy as np
import PIL.Image
import pytest
import torch
from fakes import noise_image
from torchvision.transforms.v2.functional import rgb_to_grayscale

from vision_serving.config import PreprocessingConfig
from vision_serving.errors import ConfigError
from vision_serving.graphs.pixels import Normalize
from vision_serving.validation import parse_config

EXACT_16 = {"mode": "exact", "size": [16, 16]}
LEVELS = {"channels": 1, "mean": [0.0], "std": [1 / 255]}


def new_normalize(**changes: object) -> Normalize:
    return Normalize(parse_config(PreprocessingConfig, {"resize": EXACT_16, **changes}, "test"))


def test_gray_is_that_of_pillow_to_the_bit() -> None:
    image = noise_image(0, (512, 512))
    image[:1, :256] = np.arange(256, dtype=np.uint8)[:, None]
    found = new_normalize(**LEVELS).to_levels(torch.from_numpy(image)[None])
    expected = np.asarray(PIL.Image.fromarray(image).convert("L"))
    assert found.shape == (1, 1, 512, 512)
    np.testing.assert_array_equal(found[0, 0].numpy(), expected)


def test_gray_of_torchvision_is_its_own() -> None:
    image = torch.from_numpy(noise_image(1, (64, 64)))
    found = new_normalize(channels=1, gray="torchvision", mean=[0.0], std=[1.0])(image[None])[0]
    torch.testing.assert_close(found, rgb_to_grayscale(image.permute(2, 0, 1) / 255), atol=1e-6, rtol=0)


@pytest.mark.parametrize("gray", ["pillow", "torchvision"])
def test_gray_has_gradients_for_explanations(gray: str) -> None:
    pixels = torch.full((1, 4, 4, 3), 100.0, requires_grad=True)
    new_normalize(channels=1, gray=gray, mean=[0.0], std=[1 / 255])(pixels).sum().backward()
    assert pixels.grad is not None
    torch.testing.assert_close(pixels.grad[0, 0, 0], torch.tensor([0.299, 0.587, 0.114]), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 1}, r"`channels: 1` needs `mean` of 1, got \[0.485, 0.456, 0.406\]"),
        ({"mean": [0.5]}, r"`channels: 3` needs `mean` of 3, got \[0.5\]"),
        ({**LEVELS, "color_order": "bgr"}, "`color_order` is of three channels"),
    ],
    ids=["mean of colours", "mean of gray", "order"],
)
def test_channels_that_do_not_fit_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        new_normalize(**changes)
