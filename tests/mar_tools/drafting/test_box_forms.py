"""The form of boxes is found by what becomes of them where pictures are mirrored."""

import pytest
import torch
from torch import Tensor

from mar_tools.drafting.box_forms import choose_by_mirroring
from mar_tools.drafting.drafts import without_notes
from mar_tools.verification.layouts import FROM_PIXELS
from vision_serving.graphs.outputs import BoxForm

HEIGHT, WIDTH = 96, 128


def find_bright(images: Tensor) -> Tensor:
    """Return the box xyxy (N, 1, 4) of what is bright in each image: a detector that makes no mistake."""
    boxes = []
    for image in images[:, 0]:
        rows, columns = (image > 0.5).nonzero(as_tuple=True)
        boxes.append(torch.stack((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)))
    return torch.stack(boxes)[:, None].float()


def pictures() -> Tensor:
    images = torch.zeros(3, 3, HEIGHT, WIDTH)
    for number, (y, x, height, width) in enumerate(((10, 60, 20, 40), (50, 8, 30, 24), (4, 20, 16, 70))):
        images[number, :, y : y + height, x : x + width] = 1
    return images


def answer(form: BoxForm, images: Tensor) -> dict[str, Tensor]:
    found = FROM_PIXELS[form](find_bright(images)[:, 0])[:, None]
    empty = FROM_PIXELS[form](torch.tensor([[0.0, 0, WIDTH, HEIGHT]])).expand(len(images), 1, 4)
    boxes = torch.cat((empty, found), dim=1)
    return {"boxes": boxes, "scores": torch.tensor([[[0.01], [0.9]]]).expand(len(images), 2, 1)}


@pytest.mark.parametrize("truth", FROM_PIXELS)
@pytest.mark.parametrize("given", [None, "cxcywh"])
def test_the_form_is_that_in_which_boxes_are_mirrored_too(given: BoxForm | None, truth: BoxForm) -> None:
    output = {"format": "boxes_scores"} if given is None else {"format": "boxes_scores", "box_format": given}
    images = pictures()
    found, notes = choose_by_mirroring(output, answer(truth, images), answer(truth, images.flip(3)), images)
    assert without_notes(found).get("box_format", "xyxy") == truth
    assert notes == ()


def test_a_form_is_kept_where_mirroring_tells_nothing() -> None:
    images = pictures()
    same = {"boxes": torch.rand(3, 9, 4).sort().values * 64, "scores": torch.rand(3, 9, 2)}
    for output in ({"format": "boxes_scores"}, {"format": "detr", "activation": "sigmoid"}, {"decode": "decode.py"}):
        assert choose_by_mirroring(output, same, same, images)[0] == output


def test_parts_of_a_wide_picture_are_mirrored_as_parts() -> None:
    images = pictures()
    parts = {}
    for name, each in (("there", images), ("here", images.flip(3))):
        given = answer("xyxy", each)
        boxes = (given["boxes"] / torch.tensor([WIDTH, HEIGHT, WIDTH, HEIGHT]))[..., [1, 0, 3, 2]]
        parts[name] = {**given, "boxes": boxes}
    output = {"format": "boxes_scores", "normalized": True}
    found, notes = choose_by_mirroring(output, parts["there"], parts["here"], images)
    assert (without_notes(found), notes) == ({**output, "box_format": "yxyx"}, ())


def test_distances_to_the_sides_of_a_box_are_told_to_be_no_boxes() -> None:
    images = pictures()
    centre = torch.tensor([WIDTH, HEIGHT]) / 2

    def give_distances(images: Tensor) -> dict[str, Tensor]:
        boxes = find_bright(images)
        distances = torch.cat((centre - boxes[..., :2], boxes[..., 2:] - centre), dim=-1)
        return {"boxes": distances, "scores": torch.full((len(images), 1, 1), 0.9)}

    output = {"format": "boxes_scores", "box_format": "cxcywh"}
    found, notes = choose_by_mirroring(output, give_distances(images), give_distances(images.flip(3)), images)
    assert found == output
    assert ["away from the mirrored places" in note for note in notes] == [True]
