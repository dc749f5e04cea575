"""Masks of a grid in source pixels: pasted as torchvision does, written as pycocotools does, outlined."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as coco_masks
from skimage.measure import points_in_poly
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.models.detection.roi_heads import paste_masks_in_image

from vision_serving.predictions import RunLengths
from vision_serving.results.masks import _count_runs, compress_counts, cut_mask, encode_rle, place_mask, trace_polygons

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # in pycocotools
IMAGE_HW = (60, 90)
BOXES = {
    "inside": (10.2, 12.7, 50.9, 41.4),
    "the whole image": (0.0, 0.0, 90.0, 60.0),
    "at a corner": (70.3, 40.1, 90.0, 60.0),
    "thin": (20.0, 5.5, 21.1, 50.0),
    "a point": (30.5, 30.5, 30.5, 30.5),
    "full height": (30.0, 0.0, 60.0, 60.0),
    "beyond the image": (-30.0, -20.0, 40.0, 90.0),
}


def noise_mask(seed: int = 0) -> Tensor:
    return torch.rand(28, 28, generator=torch.Generator().manual_seed(seed))


def round_mask(*centres_radii: tuple[float, float, float]) -> Tensor:
    """(28, 28): high within circles (x, y, radius) in cells."""
    y, x = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    depths = [radius - ((x - cx) ** 2 + (y - cy) ** 2).sqrt() for cx, cy, radius in centres_radii]
    return torch.stack(depths).amax(dim=0).sigmoid()


def decode(run_lengths: RunLengths) -> NDArray[np.bool_]:
    decoded: NDArray[np.uint8] = coco_masks.decode(vars(run_lengths))
    return decoded.astype(np.bool_)


def draw(polygon: tuple[float, ...], image_hw: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels whose centres are inside."""
    rows, columns = np.indices(image_hw)
    centres = np.stack((columns.ravel() + 0.5, rows.ravel() + 0.5), axis=1)
    outline = np.array(polygon).reshape(-1, 2)
    inside: NDArray[np.bool_] = points_in_poly(centres, outline).reshape(image_hw)  # type: ignore[no-untyped-call]
    return inside


@pytest.mark.parametrize("mask", [noise_mask(), round_mask((14, 14, 9)), torch.ones(28, 28), torch.zeros(28, 28)],
                         ids=["noise", "round", "all", "nothing"])  # fmt: skip
@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES)
def test_a_mask_covers_the_pixels_that_torchvision_pastes(box: tuple[float, ...], mask: Tensor) -> None:
    placed = place_mask(mask, torch.tensor(box))
    expected = paste_masks_in_image(mask[None, None], torch.tensor([box]), IMAGE_HW)[0, 0] >= 0.5
    assert (decode(encode_rle(placed, IMAGE_HW)) == expected.numpy()).all()


def test_a_box_far_outside_has_an_empty_mask() -> None:
    placed = place_mask(torch.ones(28, 28), torch.tensor([200.0, 300.0, 220.0, 330.0]))
    assert encode_rle(placed, IMAGE_HW) == RunLengths(IMAGE_HW, compress_counts(np.array([60 * 90])))
    assert all(draw(polygon, IMAGE_HW).sum() == 0 for polygon in trace_polygons(placed, IMAGE_HW))


@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.tuples(st.integers(0, 5), st.integers(0, 5)),
    st.sampled_from([0.0, 0.02, 0.5, 0.98, 1.0]),
    st.integers(0, 100),
)
def test_run_lengths_are_pycocotools_own(
    window_hw: tuple[int, int], margin: tuple[int, int], share: float, seed: int
) -> None:
    """For windows with and without a margin to the image's edges."""
    window = np.random.default_rng(seed).random(window_hw) < share
    whole = np.pad(window, (margin, margin[::-1]))
    counts = _count_runs(np.ascontiguousarray(window.T), left=margin[1], top=margin[0], image_hw=whole.shape)
    expected = coco_masks.encode(np.asfortranarray(whole.astype(np.uint8)))
    assert compress_counts(counts).encode() == expected["counts"]
    assert list(whole.shape) == expected["size"]


def test_long_runs_are_pycocotools_own() -> None:
    whole = np.zeros((7000, 9000), dtype=np.uint8, order="F")
    whole[3000:3003, 10] = whole[:, 4000:4100] = whole[6999, 8999] = 1
    counts = _count_runs(whole.T.astype(np.bool_), left=0, top=0, image_hw=(7000, 9000))
    assert compress_counts(counts).encode() == coco_masks.encode(whole)["counts"]


@pytest.mark.parametrize("box", [(10.2, 12.7, 50.9, 41.4), (0.0, 0.0, 90.0, 60.0), (60.0, 30.0, 110.0, 80.0)], ids=str)
def test_a_polygon_encloses_the_pixels_of_its_mask(box: tuple[float, ...]) -> None:
    placed = place_mask(round_mask((13, 14, 9)), torch.tensor(box))
    [polygon] = trace_polygons(placed, IMAGE_HW)
    drawn, exact = draw(polygon, IMAGE_HW), decode(encode_rle(placed, IMAGE_HW))
    # A chord for the curve within a cell of the grid: pixels of the rim may fall to the other side.
    assert (drawn & exact).sum() / (drawn | exact).sum() > 0.98


def test_every_part_has_its_polygon_and_holes_have_none() -> None:
    box, image_hw = torch.tensor([0.0, 0.0, 280.0, 280.0]), (280, 280)
    parts = trace_polygons(place_mask(round_mask((6, 6, 4), (20, 20, 6)), box), image_hw)
    assert len(parts) == 2
    ring = round_mask((14, 14, 10)) * (1 - round_mask((14, 14, 5)))
    [outline] = trace_polygons(place_mask(ring, box), image_hw)
    assert draw(outline, image_hw)[140, 140]
    assert trace_polygons(place_mask(torch.zeros(28, 28), box), image_hw) == ()


def test_polygons_of_noise_close_and_stay_in_the_image() -> None:
    """All kinds of cells, saddles too."""
    for seed in range(5):
        placed = place_mask(noise_mask(seed), torch.tensor([-20.0, 10.0, 70.0, 90.0]))
        polygons = trace_polygons(placed, IMAGE_HW)
        assert len(polygons) > 5
        points = np.concatenate([np.array(polygon).reshape(-1, 2) for polygon in polygons])
        assert (points >= 0).all()
        assert (points <= IMAGE_HW[::-1]).all()
        exact = decode(encode_rle(placed, IMAGE_HW))
        drawn = np.any([draw(polygon, IMAGE_HW) for polygon in polygons], axis=0)
        assert (drawn & exact).sum() / exact.sum() > 0.9  # holes are filled, and nothing is left out


GRID_BOXES = {**BOXES, "half pixels": (10.5, 12.5, 50.5, 41.5)}
del GRID_BOXES["beyond the image"]  # a box is cut to the image before


@pytest.mark.parametrize("box", GRID_BOXES.values(), ids=GRID_BOXES)
@pytest.mark.parametrize("padding", [0, 30], ids=["no padding", "letterbox"])
def test_a_mask_of_the_whole_image_is_enlarged_and_cut_off_at_its_box(box: tuple[float, ...], padding: int) -> None:
    """A grid over the image, with as many pixels of padding above it as below."""
    height, width = IMAGE_HW
    logits = torch.randn(15, 18, generator=torch.Generator().manual_seed(0))
    placed = cut_mask(logits, torch.tensor([0.0, -padding, width, height + padding]), torch.tensor(box))
    enlarged = interpolate(logits[None, None], size=(height + 2 * padding, width), mode="bilinear")[0, 0].numpy()
    rows, columns = np.indices(IMAGE_HW) + 0.5
    inside = (columns >= box[0]) & (columns < box[2]) & (rows >= box[1]) & (rows < box[3])
    assert (decode(encode_rle(placed, IMAGE_HW)) == ((enlarged[padding : padding + height] >= 0) & inside)).all()


def test_the_outline_of_a_mask_of_the_whole_image_ends_at_its_box() -> None:
    box = torch.tensor([10.2, 12.7, 50.9, 41.4])
    rows, columns = torch.meshgrid(torch.arange(15.0), torch.arange(18.0), indexing="ij")
    logits = 5.0 - ((rows - 7) ** 2 + (columns - 7) ** 2).sqrt()
    placed = cut_mask(logits, torch.tensor([0.0, 0.0, 90.0, 60.0]), box)
    [polygon] = trace_polygons(placed, IMAGE_HW)
    drawn, expected = draw(polygon, IMAGE_HW), decode(encode_rle(placed, IMAGE_HW))
    assert (drawn & expected).sum() / (drawn | expected).sum() > 0.97
    assert min(polygon[::2]) >= 10
    assert max(polygon[::2]) <= 51
