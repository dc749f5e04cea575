from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from conftest import examples
from fakes import generate_image, noise_image, solid_image
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.transforms import functional

from mar_tools.models.sources.torchvision import preprocessing_of_detector
from vision_serving.config import PreprocessingConfig, ResizeConfig
from vision_serving.geometry import ImageGeometry
from vision_serving.pictures import resizing
from vision_serving.pictures.decoding import Image
from vision_serving.pictures.resizing import model_hw, preprocess_images, resize_image, resized_hw

IMAGENET = PreprocessingConfig(resize=ResizeConfig(mode="shortest_edge", size=232), crop=(224, 224))
LETTERBOX = PreprocessingConfig(resize=ResizeConfig(mode="letterbox", size=(320, 320)))
MODES = {
    "bilinear": functional.InterpolationMode.BILINEAR,
    "bicubic": functional.InterpolationMode.BICUBIC,
    "nearest": functional.InterpolationMode.NEAREST,
}


def with_torchvision_on_pillow(image: Image, resize: int, crop: int, mode: str) -> Image:
    """What a classification preset of torchvision does to a PIL image before it scales and normalises."""
    resized = functional.resize(PIL.Image.fromarray(image), [resize], MODES[mode], antialias=True)
    return np.asarray(functional.center_crop(resized, [crop]))


SIZES_HW = [(480, 640), (640, 480), (333, 500), (224, 224), (232, 232), (100, 130), (1000, 260), (231, 700), (64, 64)]


# Both round to whole levels after each of two passes. Bicubic weights overshoot: a few pixels in 100,000 differ by 2.
@pytest.mark.parametrize(("mode", "levels"), [("bilinear", 1), ("bicubic", 2)])
@pytest.mark.parametrize("size_hw", SIZES_HW, ids=str)
def test_pixels_are_those_of_torchvision_on_pillow(size_hw: tuple[int, int], mode: str, levels: int) -> None:
    image = generate_image(0, size_hw)
    config = IMAGENET.model_copy(update={"interpolation": mode})
    found = preprocess_images([image], config).pixels[0].numpy()
    expected = with_torchvision_on_pillow(image, 232, 224, mode)
    assert found.dtype == np.uint8
    difference = np.abs(found.astype(int) - expected)
    assert difference.max() <= levels
    assert (difference > 1).mean() < 1e-4


@pytest.mark.parametrize("size_hw", [(100, 130), (130, 101), (37, 300), (224, 224)], ids=str)
@pytest.mark.parametrize("crop", [(224, 224), (201, 160)], ids=str)
def test_a_crop_larger_than_the_image_is_padded_as_torchvision_pads(
    size_hw: tuple[int, int], crop: tuple[int, int]
) -> None:
    image = noise_image(0, size_hw)
    config = PreprocessingConfig(resize=ResizeConfig(mode="shortest_edge", size=min(size_hw)), crop=crop)
    expected = np.asarray(functional.center_crop(PIL.Image.fromarray(image), list(crop)))
    assert (preprocess_images([image], config).pixels[0].numpy() == expected).all()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("antialias", [True, False], ids=["antialias", "plain"])
def test_an_image_of_the_right_size_is_not_touched(interpolation: str, antialias: bool) -> None:
    image = noise_image(0, (40, 60))
    config = PreprocessingConfig.model_validate(
        {"resize": {"mode": "exact", "size": (40, 60)}, "interpolation": interpolation, "antialias": antialias}
    )
    assert (preprocess_images([image], config).pixels[0].numpy() == image).all()


@pytest.mark.parametrize("size_hw", [(480, 640), (333, 500), (100, 130), (37, 300)], ids=str)
@pytest.mark.parametrize("target_hw", [(320, 320), (120, 200)], ids=str)
def test_plain_resizing_is_within_a_level_of_torchvision_detection(
    size_hw: tuple[int, int], target_hw: tuple[int, int]
) -> None:
    image = generate_image(1, size_hw)
    config = PreprocessingConfig(resize=ResizeConfig(mode="exact", size=target_hw), antialias=False)
    planes = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    expected = torch.nn.functional.interpolate(planes, target_hw, mode="bilinear", align_corners=False)[0]
    found = resize_image(image, target_hw, config).permute(2, 0, 1).float()
    # Ours is rounded to whole levels after each of its two passes; 0.001 is for the float arithmetic of theirs.
    assert (found - expected).abs().max() <= 1.001


def test_nearest_resizing_is_torchvisions_on_tensors() -> None:
    image = noise_image(0, (37, 50))
    config = PreprocessingConfig(resize=ResizeConfig(mode="exact", size=(20, 90)), interpolation="nearest")
    expected = functional.resize(torch.from_numpy(image).permute(2, 0, 1), [20, 90], MODES["nearest"])
    assert (resize_image(image, (20, 90), config) == expected.permute(1, 2, 0)).all()


sides = st.integers(1, 3000)


@given(sides, sides, st.integers(1, 800), st.integers(1, 1333))
def test_bounded_edges_are_the_sizes_of_torchvisions_detection_transform(
    height: int, width: int, size: int, more: int
) -> None:
    transform = GeneralizedRCNNTransform(size, size + more, [0.0] * 3, [1.0] * 3)
    ours = resized_hw((height, width), preprocessing_of_detector(transform).resize)
    scale = min(size / min(height, width), (size + more) / max(height, width))
    # interpolate(..., recompute_scale_factor=True): the floor of each scaled side
    assert ours == (max(1, int(height * scale)), max(1, int(width * scale)))


@pytest.mark.parametrize("size_hw", [(48, 64), (64, 48), (30, 200), (99, 100), (77, 31)], ids=str)
def test_bounded_edges_are_the_sizes_that_torchvision_gives(size_hw: tuple[int, int]) -> None:
    transform = GeneralizedRCNNTransform(40, 70, [0.0] * 3, [1.0] * 3).eval()
    resized, _ = transform.resize(torch.zeros(3, *size_hw))
    assert resized_hw(size_hw, preprocessing_of_detector(transform).resize) == resized.shape[-2:]


@given(sides, sides, st.integers(1, 800))
def test_shortest_edge_is_the_size_of_torchvisions_resize(height: int, width: int, size: int) -> None:
    from torchvision.transforms.functional import _compute_resized_output_size

    found = resized_hw((height, width), ResizeConfig(mode="shortest_edge", size=size))
    assert list(found) == _compute_resized_output_size((height, width), [size])


GEOMETRY_CONFIGS = {
    "letterbox": LETTERBOX,
    "letterbox wide": PreprocessingConfig(resize=ResizeConfig(mode="letterbox", size=(200, 416))),
    "exact": PreprocessingConfig(resize=ResizeConfig(mode="exact", size=(320, 300))),
    "bounded": PreprocessingConfig(resize=ResizeConfig(mode="bounded_edges", size=200, max_size=333)),
}


@pytest.mark.parametrize(
    "resize",
    [
        {"mode": "letterbox", "size": (320, 320)},
        {"mode": "bounded_edges", "size": 320, "max_size": 320, "pad_size": (320, 320)},
    ],
    ids=["letterbox", "pad_size"],
)
def test_a_picture_at_the_top_left_has_its_border_below_or_to_its_right(resize: dict[str, Any]) -> None:
    config = PreprocessingConfig.model_validate({"resize": {**resize, "pad_place": "top_left"}})
    batch = preprocess_images([solid_image((7, 7, 7), (10, 20))], config)
    assert batch.pixels.shape == (1, 320, 320, 3)
    assert (batch.pixels[0, :160] == 7).all()
    assert (batch.pixels[0, 160:] == 114).all()
    assert batch.geometries[0].to_source(torch.tensor([[16.0, 32.0, 320.0, 160.0]])).tolist() == [[1, 2, 20, 10]]


# Narrow and low, wide, and tall pictures; and what overshoots.
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("size_hw", [(600, 150), (150, 600), (300, 100), (64, 64)], ids=str)
def test_the_order_of_the_passes_is_what_the_configuration_says(size_hw: tuple[int, int], interpolation: str) -> None:
    image = generate_image(0, size_hw) // 128 * 255  # hard edges
    config = PreprocessingConfig.model_validate(
        {"resize": {"mode": "exact", "size": (120, 130)}, "interpolation": interpolation}
    )
    picture, filters = PIL.Image.fromarray(image), PIL.Image.Resampling[interpolation.upper()]
    width_first = picture.resize((130, size_hw[0]), filters).resize((130, 120), filters)
    height_first = picture.resize((size_hw[1], 120), filters).resize((130, 120), filters)
    lost_height, lost_width = size_hw[0] - 120, size_hw[1] - 130
    orders = {
        "horizontal_first": width_first,
        "pillow13": height_first if lost_height > max(0, 2 * lost_width) else width_first,
    }
    for order, expected in orders.items():
        found = resize_image(image, (120, 130), config.model_copy(update={"pass_order": order}))
        assert np.abs(found.numpy().astype(int) - np.asarray(expected)).max() <= 2
    if (size_hw[0], interpolation) == (600, "bicubic"):
        assert np.abs(np.asarray(width_first).astype(int) - np.asarray(height_first)).max() > 2


EVERY_MODE = {
    **GEOMETRY_CONFIGS,
    "shortest edge": PreprocessingConfig(resize=ResizeConfig(mode="shortest_edge", size=200, max_size=300)),
    "multiple of": PreprocessingConfig(
        resize=ResizeConfig(mode="shortest_edge", size=200, max_size=300, multiple_of=32)
    ),
    "shortest edge, cropped": PreprocessingConfig(resize=ResizeConfig(mode="shortest_edge", size=210), crop=(200, 201)),
    "cover": PreprocessingConfig(resize=ResizeConfig(mode="cover", size=(200, 200)), crop=(200, 190)),
}


def measure_ends(profile: torch.Tensor) -> tuple[float, float]:
    """Where the white of a row of pixels begins and ends, to a fraction of a pixel, by its sum to both sides."""
    white = profile.double() / 255
    middle = int(torch.searchsorted(white.cumsum(0), white.sum() / 2))
    return middle - float(white[:middle].sum()), middle + float(white[middle:].sum())


# Sides up to 1.8 to 1, of which a square crop leaves the middle half. Up to five times the model's pixels: an edge is
# seen to a few hundredths of one, since pixels are whole levels.
@settings(max_examples=examples(30), deadline=None)
@given(
    short=st.integers(60, 500), ratio=st.floats(1, 1.8), upright=st.booleans(), shares=st.tuples(*[st.floats(0, 1)] * 4)
)
@pytest.mark.parametrize("config", EVERY_MODE.values(), ids=EVERY_MODE.keys())
def test_a_box_goes_through_model_pixels_and_back_within_half_a_pixel(
    config: PreprocessingConfig, short: int, ratio: float, upright: bool, shares: tuple[float, float, float, float]
) -> None:
    height, width = sorted((short, round(short * ratio)), reverse=upright)
    # Corners in the middle half, on whole pixels, at least an eighth apart, so that the middle is quite white.
    x1, y1 = (round(side * (0.26 + 0.1 * share)) for side, share in zip((width, height), shares[:2], strict=True))
    x2, y2 = (round(side * (0.64 + 0.1 * share)) for side, share in zip((width, height), shares[2:], strict=True))
    image = solid_image((0, 0, 0), (height, width))
    image[y1:y2, x1:x2] = 255
    black_bars = config.model_copy(update={"resize": config.resize.model_copy(update={"pad_value": 0})})
    batch = preprocess_images([image], black_bars)
    pixels = batch.pixels[0, ..., 0]
    middle_y, middle_x = (round(sum(measure_ends(line)) / 2) for line in (pixels.amax(dim=1), pixels.amax(dim=0)))
    (left, right), (top, bottom) = measure_ends(pixels[middle_y]), measure_ends(pixels[:, middle_x])
    found = batch.geometries[0].to_source(torch.tensor([[left, top, right, bottom]]))
    assert (found - torch.tensor([[x1, y1, x2, y2]])).abs().max() <= 0.5


@settings(max_examples=examples(30), deadline=None)
@given(height=st.integers(1, 1200), width=st.integers(1, 1200), corners=st.tuples(*[st.floats(0, 1)] * 4))
@pytest.mark.parametrize("config", EVERY_MODE.values(), ids=EVERY_MODE.keys())
def test_the_geometry_undoes_the_resize_at_any_size(
    config: PreprocessingConfig, height: int, width: int, corners: tuple[float, float, float, float]
) -> None:
    """The corners of the image and any box in it, by the sizes of the resize alone; whole pixels are drawn above."""
    resized_height, resized_width = resized_hw((height, width), config.resize)
    (geometry,) = preprocess_images([solid_image((0, 0, 0), (height, width))], config).geometries
    offset_y, offset_x = geometry.offset_hw
    (x1, x2), (y1, y2) = sorted(corners[:2]), sorted(corners[2:])
    shares = torch.tensor([[0, 0, 1, 1], [x1, y1, x2, y2]], dtype=torch.float64)
    seen = (shares * torch.tensor([resized_width, resized_height] * 2) + torch.tensor([offset_x, offset_y] * 2)).float()
    expected = shares * torch.tensor([width, height] * 2)
    assert (geometry.to_source(seen) - expected).abs().max() <= 0.5


def test_a_region_lies_at_its_corner_in_the_source_image() -> None:
    geometry = ImageGeometry((300, 400), (0.5, 0.5), (10, 0), region=(100, 50, 300, 150))
    found = geometry.to_source(torch.tensor([[0.0, 10.0, 50.0, 30.0], [-5.0, -5.0, 500.0, 500.0]]))
    assert found.tolist() == [[100, 50, 200, 90], [100, 50, 300, 150]]


def test_letterbox_fills_the_border_and_centres_the_picture() -> None:
    pixels = preprocess_images([solid_image((7, 7, 7), (10, 20))], LETTERBOX).pixels[0]
    assert pixels.shape == (320, 320, 3)
    assert (pixels[80:240] == 7).all()
    assert (pixels[:80] == 114).all()
    assert (pixels[240:] == 114).all()


def test_boxes_are_clipped_to_the_source_image() -> None:
    geometry = ImageGeometry((100, 200), (0.5, 0.5), (10, 0))
    found = geometry.to_source(torch.tensor([[-5.0, -5.0, 500.0, 500.0], [10, 20, 20, 30]]))
    assert found.tolist() == [[0, 0, 200, 100], [20, 20, 40, 40]]


def test_no_boxes_stay_no_boxes() -> None:
    assert ImageGeometry((10, 10), (1, 1), (0, 0)).to_source(torch.zeros(0, 4)).shape == (0, 4)


def test_a_batch_is_the_same_as_its_images_alone() -> None:
    images = [generate_image(seed, size_hw) for seed, size_hw in enumerate([(50, 70), (70, 50), (232, 300)])]
    batch = preprocess_images(images, IMAGENET)
    for index, image in enumerate(images):
        alone = preprocess_images([image], IMAGENET)
        assert (batch.pixels[index] == alone.pixels[0]).all()
        assert batch.geometries[index] == alone.geometries[0]


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 100), (100, 1), (2, 3)], ids=str)
@pytest.mark.parametrize("config", [IMAGENET, *GEOMETRY_CONFIGS.values()], ids=["imagenet", *GEOMETRY_CONFIGS])
def test_extreme_shapes_have_the_model_size_they_promise(config: PreprocessingConfig, size_hw: tuple[int, int]) -> None:
    batch = preprocess_images([noise_image(0, size_hw)], config)
    assert batch.pixels.shape[1:3] == model_hw(size_hw, config)


def test_preprocessing_leaves_the_decoded_image_alone() -> None:
    image = noise_image(0, (16, 16))
    before = image.copy()
    image.flags.writeable = False
    preprocess_images([image], PreprocessingConfig(resize=ResizeConfig(mode="exact", size=(16, 16))))
    assert (image == before).all()


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size_hw", [(300, 41), (37, 500)], ids=str)
def test_a_region_resized_alone_is_the_crop_of_the_whole(
    monkeypatch: pytest.MonkeyPatch, size_hw: tuple[int, int], mode: str
) -> None:
    config = IMAGENET.model_copy(update={"interpolation": mode})
    image = generate_image(0, size_hw)
    whole = preprocess_images([image], config)
    monkeypatch.setattr(resizing, "MAX_RESIZED_PIXELS", 1)
    region = preprocess_images([image], config)
    assert region.geometries == whole.geometries
    assert (region.pixels.int() - whole.pixels.int()).abs().max() <= 2  # Pillow and torch each round twice


@pytest.mark.parametrize(
    ("size_hw", "width"),
    [((96, 192), 96), ((48, 100), 100), ((50, 101), 97), ((20, 1000), 192), ((500, 20), 2)],
    ids=["scaled down", "as it is", "rounded up", "squeezed", "narrow"],
)
def test_a_line_of_text_gets_the_height_and_is_squeezed_or_filled_up(size_hw: tuple[int, int], width: int) -> None:
    """As PaddleOCR's resize_norm_img: the width is ceil(48 * width / height), at most 192."""
    resize = ResizeConfig(mode="fixed_height", size=(48, 192), pad_value=127)
    batch = preprocess_images([solid_image((200, 0, 0), size_hw)], PreprocessingConfig(resize=resize))
    assert batch.size_hw == (48, 192)
    assert (batch.pixels[0, :, :width] == torch.tensor([200, 0, 0])).all()
    assert (batch.pixels[0, :, width:] == 127).all()
