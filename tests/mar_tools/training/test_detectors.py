"""Detectors in training: boxes follow the changes of their pictures, losses are finite, the recipe proves itself."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import PIL.Image
import pytest
import torch
from conftest import RunHere

from mar_tools.models.checkpoints import load_checkpoint
from mar_tools.models.recipes import read_recipe
from mar_tools.training.annotated import AnnotatedPicture, Box
from mar_tools.training.boxed_pictures import BoxedDataset, new_box_change
from mar_tools.training.detector_networks import DetectorStart, start_detector
from mar_tools.training.detectors import DetectorTraining, Judge
from mar_tools.training.settings import Settings
from mar_tools.verification.labelled import read_coco
from vision_serving.config import PreprocessingConfig, ResizeConfig
from vision_serving.errors import ConfigError

LETTERBOX = PreprocessingConfig(resize=ResizeConfig(mode="letterbox", size=(96, 96)))
COLOURS = ((220, 40, 40), (40, 60, 220))


def draw_squares(path: Path, seed: int, size_hw: tuple[int, int] = (60, 90)) -> AnnotatedPicture:
    """Draw one or two squares of the colour of their class on grey."""
    draws = np.random.default_rng(seed)
    pixels = np.full((*size_hw, 3), 114, dtype=np.uint8)
    boxes = []
    for place in range(int(draws.integers(1, 3))):
        side, class_id = int(draws.integers(16, 28)), int(draws.integers(0, 2))
        left, top = place * size_hw[1] // 2 + int(draws.integers(0, 14)), int(draws.integers(0, size_hw[0] - side))
        pixels[top : top + side, left : left + side] = COLOURS[class_id]
        boxes.append(Box((left, top, left + side, top + side), class_id))
    PIL.Image.fromarray(pixels).save(path)
    return AnnotatedPicture(path=path, digest=str(seed), boxes=tuple(boxes), size_hw=size_hw)


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of 24 pictures with squares, and their annotations in COCO's form."""
    folder = tmp_path_factory.mktemp("squares")
    images: list[Any] = []
    annotations: list[Any] = []
    for number in range(24):
        picture = draw_squares(folder / f"{number:02}.png", number)
        images.append({"id": number, "file_name": picture.path.name, "width": 90, "height": 60})
        for (x1, y1, x2, y2), class_id in ((box.xyxy, box.class_id) for box in picture.boxes):
            annotation = {"image_id": number, "category_id": 5 + class_id, "bbox": [x1, y1, x2 - x1, y2 - y1]}
            annotations.append({"id": len(annotations), **annotation})
    categories = [{"id": 5, "name": "red"}, {"id": 6, "name": "blue"}]
    document = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(document))
    return folder


@pytest.mark.parametrize("strength", ["light", "standard"])
def test_boxes_follow_their_picture(strength: Any, tmp_path: Path) -> None:
    picture = draw_squares(tmp_path / "a.png", 3)
    data = BoxedDataset([picture], LETTERBOX, 0, new_box_change(strength, flip=True), seed=5, trains=True)
    seen = 0
    for epoch in range(30):
        example = data[epoch]
        coloured = (example.pixels.amax(2).int() - example.pixels.amin(2).int()) > 60
        for x1, y1, x2, y2 in example.boxes.round().int().tolist():
            inner = coloured[y1 + 2 : y2 - 2, x1 + 2 : x2 - 2]
            assert inner.numel() == 0 or inner.float().mean() > 0.9
            seen += 1
        if len(example.boxes) == len(picture.boxes):
            covered = torch.zeros_like(coloured)
            for x1, y1, x2, y2 in example.boxes.round().int().tolist():
                covered[max(0, y1 - 2) : y2 + 2, max(0, x1 - 2) : x2 + 2] = True
            assert not (coloured & ~covered).any()
    assert seen > 20


def test_what_judges_sees_the_picture_as_it_is_served(tmp_path: Path) -> None:
    picture = draw_squares(tmp_path / "a.png", 3)
    example = BoxedDataset([picture], LETTERBOX, 1)[0]
    assert example.class_ids.tolist() == [box.class_id + 1 for box in picture.boxes]
    known = torch.tensor([box.xyxy for box in picture.boxes], dtype=torch.float32)
    assert torch.allclose(example.geometry.to_source(example.boxes), known, atol=1e-3)


@pytest.fixture(
    scope="module",
    params=[
        ("compact", 96),
        ("ssdlite320_mobilenet_v3_large", None),
        ("fasterrcnn_mobilenet_v3_large_320_fpn", 96),
        ("retinanet_resnet50_fpn", 64),
        ("fcos_resnet50_fpn", 64),
    ],
    ids=lambda param: param[0],
)
def start(request: pytest.FixtureRequest) -> DetectorStart:
    name, size = request.param
    return start_detector(name, "random", 2, size)


def test_a_step_of_each_family_has_a_loss_with_and_without_boxes(start: DetectorStart, tmp_path: Path) -> None:
    empty = AnnotatedPicture(path=draw_squares(tmp_path / "e.png", 9).path, digest="e", boxes=(), size_hw=(60, 90))
    pictures = [draw_squares(tmp_path / "a.png", 1), empty]
    data = BoxedDataset(pictures, start.preprocessing, start.first_class, trains=True)
    training = DetectorTraining(start, Judge(start), Settings()).train()
    loss = start.compute_loss(training.network, [data[0], data[1]])
    loss.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(loss)
    assert any(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in training.parameters())
    assert torch.isfinite(start.compute_loss(training.network, [data[1], data[1]]))


def test_each_family_is_judged_on_the_graph_that_is_served(start: DetectorStart, tmp_path: Path) -> None:
    pictures = [draw_squares(tmp_path / f"{seed}.png", seed, (60, 90 + 20 * seed)) for seed in range(2)]
    data = BoxedDataset(pictures, start.preprocessing, start.first_class)
    judge = Judge(start)
    judge.begin(start.network, torch.device("cpu"))
    judge.see([data[0], data[1]])
    assert judge.figures().keys() == {"map", "map_50"}
    assert all(parameter.requires_grad for parameter in start.network.parameters())


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("resnet18", None, "expected a detector: compact, fasterrcnn"),
        ("maskrcnn_resnet50_fpn", None, "needs masks or keypoints"),
        ("compact", 100, "a multiple of 16"),
        ("ssdlite320_mobilenet_v3_large", 64, "takes pictures of 320 x 320 alone"),
    ],
)
def test_what_cannot_begin_is_refused(name: str, size: int | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        start_detector(name, "random", 2, size)


def test_a_detector_without_annotations_is_refused(tmp_path: Path, run_here: RunHere) -> None:
    (tmp_path / "data").mkdir()
    done = run_here("train_model.py", tmp_path / "data", "--model", "compact", "--output", tmp_path / "m")
    assert done.returncode == 1
    assert "a detector needs boxes" in done.stderr


def test_a_trained_detector_leaves_a_recipe_with_its_proof(squares: Path, tmp_path: Path, run_here: RunHere) -> None:
    output = tmp_path / "found"
    options = ("--model", "compact", "--size", 64, "--epochs", 2, "--batch-size", 8, "--augment", "light")
    done = run_here("train_model.py", squares, *options, "--output", output, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    recipe = read_recipe(Path(told["recipe"]))
    checkpoint = load_checkpoint(recipe)
    assert checkpoint.labels == ["red", "blue"]
    assert recipe.verification.annotations is not None
    images = read_coco(output / "heldout", recipe.path(recipe.verification.annotations), checkpoint.labels, None)
    assert len(images.paths) == told["pictures"]["test"] == 4
    assert images.truth is not None
    names = {row.split(",")[2] for row in (output / "split.csv").read_text().splitlines() if ",test," in row}
    assert {path.name for path in images.paths} == names
    assert told["test_map"] <= told["test_map_50"]
    assert orjson.loads((output / "training.json").read_bytes())["settings"]["learning_rate"] == 2e-3
