"""A detector of torchvision that was scripted is read as its network: the same weights, the same settings."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from test_stock_archives import pack
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models.detection.faster_rcnn import FasterRCNN
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

from mar_tools.drafting.drafts import Hints, write_draft
from mar_tools.drafting.forms import draft_recipe
from mar_tools.models.checkpoints import load_checkpoint
from mar_tools.models.recipes import read_recipe
from vision_serving.errors import ConfigError

BUILT: dict[str, dict[str, Any]] = {
    "fasterrcnn_mobilenet_v3_large_320_fpn": {"num_classes": 4, "min_size": 200, "box_detections_per_img": 7},
    "ssdlite320_mobilenet_v3_large": {"num_classes": 3, "nms_thresh": 0.3},
}
FEW = {"rpn_post_nms_top_n_test": 50, "box_score_thresh": 0.0}


def build(name: str, **settings: Any) -> nn.Module:
    torch.manual_seed(0)
    builder = getattr(detection, name)
    network: nn.Module = builder(weights=None, weights_backbone=None, **settings).eval()
    return network


def script(network: nn.Module, file: Path) -> torch.jit.ScriptModule:
    program = torch.jit.script(network)
    program.save(str(file))  # type: ignore[no-untyped-call]
    return program


def read(model: Path, folder: Path) -> nn.Module:
    """Return the network of the recipe that is written for a model."""
    draft = draft_recipe(str(model), Hints())
    write_draft(draft, folder / "m.yaml", "Written by a test.", force=True)
    return load_checkpoint(read_recipe(folder / "m.yaml")).network


def boxes_of(network: Any, image: Tensor) -> list[dict[str, Tensor]]:
    with torch.inference_mode():
        answer = network([image])
    boxes: list[dict[str, Tensor]] = answer[1] if isinstance(answer, tuple) else answer
    return boxes


@pytest.mark.parametrize("name", BUILT)
def test_a_scripted_detector_is_read_with_its_weights_and_settings(name: str, tmp_path: Path) -> None:
    program = script(build(name, **BUILT[name]), tmp_path / "boxes.pt")
    draft = draft_recipe(str(tmp_path / "boxes.pt"), Hints())
    assert draft.recipe["model"]["name"].value == name
    assert draft.recipe["model"]["arguments"].value == BUILT[name]
    network = read(tmp_path / "boxes.pt", tmp_path)
    image = torch.rand(3, 240, 300)
    (own,), (found,) = boxes_of(program, image), boxes_of(network, image)
    assert own.keys() == found.keys()
    assert all(torch.equal(own[key], found[key]) for key in own)


def test_a_scripted_detector_in_a_stock_archive_keeps_its_labels(tmp_path: Path) -> None:
    name = "fasterrcnn_mobilenet_v3_large_320_fpn"
    program = script(build(name, num_classes=3, **FEW), tmp_path / "boxes.pt")
    (tmp_path / "index_to_name.json").write_text(json.dumps({"1": "cup", "2": "plate"}))
    index = str(tmp_path / "index_to_name.json")
    archive = pack(tmp_path, "table", tmp_path / "boxes.pt", handler="object_detector", extra_files=index)
    network = read(archive, tmp_path / "read")
    assert json.loads((tmp_path / "read" / "table.labels.json").read_text()) == ["class 0", "cup", "plate"]
    image = torch.rand(3, 240, 300)
    # A recipe has its own threshold of scores, which a request may change: the network's is not read.
    network.roi_heads.score_thresh = 0.0  # type: ignore[union-attr]
    (own,), (found,) = boxes_of(program, image), boxes_of(network, image)
    assert len(own["boxes"]) > 10
    assert all(torch.equal(own[key], found[key]) for key in own)


def test_a_scripted_detector_of_ones_own_is_refused_with_the_way_out(tmp_path: Path) -> None:
    backbone = nn.Sequential(nn.Conv2d(3, 8, 3, 8))
    backbone.out_channels = 8  # type: ignore[assignment]
    own = FasterRCNN(
        backbone,
        3,
        rpn_anchor_generator=AnchorGenerator(((32,),), ((1.0,),)),
        box_roi_pool=MultiScaleRoIAlign(["0"], 3, 2),
    )
    script(own.eval(), tmp_path / "own.pt")
    archive = pack(tmp_path, "own", tmp_path / "own.pt", handler="object_detector")
    for model in (tmp_path / "own.pt", archive):
        with pytest.raises(
            ConfigError, match=r"own\.pt: a detector that torch\.jit\.script saved, .*state_dict\(\): as"
        ):
            draft_recipe(str(model), Hints())
