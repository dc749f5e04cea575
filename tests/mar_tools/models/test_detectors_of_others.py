"""Detectors as others publish them, from recipe to verified exports: what no format says, sizes, packages, masks."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from fakes import Sized
from torch import Tensor, nn

from mar_tools.archives.checks import verify_archive
from mar_tools.building.packing import build_archive
from mar_tools.command_line import HANDLERS
from mar_tools.exporting.export import export_model
from mar_tools.exporting.export_folders import load_reference
from mar_tools.models.checkpoints import Checkpoint, load_checkpoint
from mar_tools.models.example_pixels import load_pixels
from mar_tools.models.recipes import Recipe, read_recipe
from mar_tools.verification.gate import verify_export
from mar_tools.verification.observations import load_handler
from vision_serving.errors import ConfigError
from vision_serving.graphs.pixels import Normalize
from vision_serving.predictions import Detections, MaskDetection
from vision_serving.requests.payload import Payload

HEIGHT, WIDTH = 32, 64
SECTION = {"resize": {"mode": "letterbox", "size": [HEIGHT, WIDTH]}}
MODEL = """
import torch
from torch import nn

from .head import Head


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = Head(3 + 4)

    def forward(self, images):
        deltas, logits = self.head(images).split((4, 3), dim=2)
        return {"deltas": deltas.sigmoid(), "logits": logits * 4}
"""
HEAD = """
from torch import nn


class Head(nn.Conv2d):
    def __init__(self, channels):
        super().__init__(3, channels, 8, 8)

    def forward(self, images):
        return super().forward(images).flatten(2).transpose(1, 2)
"""
DECODE = """
import torch


def decode(outputs, size_hw):
    height, width = size_hw
    cells = torch.tensor([(x, y) for y in range(0, height, 8) for x in range(0, width, 8)])
    boxes = torch.cat((cells + outputs["deltas"][..., :2] * 4, cells + 8 + outputs["deltas"][..., 2:] * 4), dim=-1)
    return {"boxes": boxes, "scores": outputs["logits"].sigmoid()}
"""


class Segments(nn.Module):
    """As YOLO segmentation is exported: columns that end with coefficients, and prototypes."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 4 + 3 + 2, 8, 8)
        self.prototypes = nn.Conv2d(3, 2, 4, 4)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        values = self.head(images).flatten(2)
        columns = torch.linspace(8, WIDTH - 8, values.shape[2]).expand(len(values), 1, -1)
        sizes = values[:, 1:4].sigmoid() * 16 + 8
        return torch.cat((columns, sizes, values[:, 4:7].sigmoid(), values[:, 7:]), dim=1), self.prototypes(images)


def write_recipe(folder: Path, **model: Any) -> Recipe:
    document = {
        "name": "m",
        "task": "detection",
        "model": model,
        "labels": "labels.json",
        "preprocessing": SECTION,
        "options": {"score_threshold": 0.3},
        "verification": {"count": 4},
    }
    (folder / "labels.json").write_text('["cat", "dog", "bird"]')
    (folder / "recipe.yaml").write_text(yaml.safe_dump(document))
    return read_recipe(folder / "recipe.yaml")


def export_onnx(path: Path, network: nn.Module, inputs: dict[str, Tensor], names: list[str]) -> None:
    batch = {0: torch.export.Dim.DYNAMIC}
    torch.onnx.export(
        network.eval(),
        tuple(inputs.values()),
        path,
        input_names=list(inputs),
        output_names=names,
        dynamic_shapes=(batch,) * len(inputs),
        external_data=False,
        verbose=False,
    )


def verify_everywhere(recipe: Recipe, exports: Path) -> tuple[Checkpoint, dict[str, Path]]:
    """The checkpoint, and verified folders by backend: each computes what the reference computes."""
    torch.manual_seed(0)
    checkpoint = load_checkpoint(recipe)
    folders: dict[str, Path] = {}
    for backend in ("eager", "openvino", "onnxruntime"):
        folders[backend] = export_model(recipe, checkpoint, backend, "fp32", exports)
        report = verify_export(folders[backend])
        assert report["passed"], report["failures"]
        assert report["measured"]["compared_boxes"] > 0
    return checkpoint, folders


def test_a_package_with_a_decode_of_its_own_is_served_by_every_backend(tmp_path: Path) -> None:
    files = {"net/__init__.py": "", "net/model.py": MODEL, "net/head.py": HEAD, "read/decode.py": DECODE}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    model = {"source": "python", "file": "net/model.py", "class": "Net", "weights": "random"}
    recipe = write_recipe(tmp_path, **model, output={"decode": "read/decode.py"})
    _, folders = verify_everywhere(recipe, tmp_path / "exports")
    for name in files:
        (tmp_path / name).unlink()  # an archive is whole without them
    assert load_reference(folders["eager"]).source.output.decode == "decode.py"
    load_handler(folders["eager"])
    found = sorted(path.relative_to(folders["eager"] / "model").as_posix() for path in folders["eager"].rglob("*.py*"))
    assert found == ["decode.py", "net/__init__.py", "net/head.py", "net/model.py"]
    verify_archive(build_archive(folders["eager"], HANDLERS, tmp_path / "store"))


def test_an_onnx_file_is_told_the_size_of_its_images(tmp_path: Path) -> None:
    """By the name that exporters give it, without a word in the recipe."""
    torch.manual_seed(0)
    network = Sized()
    inputs = {"images": torch.rand(2, 3, HEIGHT, WIDTH), "orig_target_sizes": torch.tensor([[WIDTH, HEIGHT]] * 2)}
    export_onnx(tmp_path / "m.onnx", network, inputs, ["labels", "boxes", "scores"])
    recipe = write_recipe(tmp_path, source="onnx", file="m.onnx", output={"format": "boxes_scores_labels"})
    checkpoint, folders = verify_everywhere(recipe, tmp_path / "exports")
    pixels = load_pixels(2, checkpoint.preprocessing)
    found = load_handler(folders["openvino"]).backend.infer(pixels)
    normalize = Normalize(checkpoint.preprocessing)
    with torch.inference_mode():
        labels, boxes, scores = network(normalize(pixels), torch.tensor([[WIDTH, HEIGHT]] * 2))
    torch.testing.assert_close(found["boxes"], boxes, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(found["scores"], scores, atol=1e-4, rtol=1e-4)
    assert torch.equal(found["class_ids"], labels)


def test_an_unknown_second_input_is_named_with_what_to_say_of_it(tmp_path: Path) -> None:
    inputs = {"images": torch.rand(2, 3, HEIGHT, WIDTH), "shape": torch.tensor([[WIDTH, HEIGHT]] * 2)}
    export_onnx(tmp_path / "m.onnx", Sized(), inputs, ["labels", "boxes", "scores"])
    recipe = write_recipe(tmp_path, source="onnx", file="m.onnx", output={"format": "boxes_scores_labels"})
    with pytest.raises(ConfigError, match=r"also takes 'shape' .* `inputs: {shape: width_height}`"):
        load_checkpoint(recipe)


def test_an_onnx_file_with_masks_answers_with_them(tmp_path: Path) -> None:
    torch.manual_seed(0)
    export_onnx(tmp_path / "m.onnx", Segments(), {"images": torch.rand(2, 3, HEIGHT, WIDTH)}, ["output0", "output1"])
    output = {"format": "yolo", "layout": "columns", "objectness": False, "masks": True}
    recipe = write_recipe(tmp_path, source="onnx", file="m.onnx", output=output)
    _, folders = verify_everywhere(recipe, tmp_path / "exports")
    encoded = (Path(__file__).parents[3] / "examples" / "photographs" / "28_astronaut.jpg").read_bytes()
    [outcome] = load_handler(folders["onnxruntime"]).predict([Payload(images=(encoded,), options={})])
    [found] = outcome.items
    assert isinstance(found, Detections)
    masks = [detection.mask for detection in found.detections if isinstance(detection, MaskDetection)]
    assert len(masks) == len(found.detections) > 0
    assert {mask and mask.size for mask in masks} == {(found.image.height, found.image.width)}


def test_a_label_for_each_class_that_is_found(tmp_path: Path) -> None:
    class Rows(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.tensor([[[0.0, 0, 9, 9, 0.9, 3]]]).expand(len(images), 1, 6)

    torch.jit.trace(Rows().eval(), torch.rand(2, 3, HEIGHT, WIDTH)).save(tmp_path / "m.pt")  # type: ignore[no-untyped-call]
    recipe = write_recipe(tmp_path, source="torchscript", file="m.pt", output={"format": "end_to_end"})
    with pytest.raises(ConfigError, match="the model has 4 classes but there are 3 labels"):
        export_model(recipe, load_checkpoint(recipe), "eager", "fp32", tmp_path / "exports")
