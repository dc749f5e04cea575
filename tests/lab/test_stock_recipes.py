"""Stock archives of the sizes that people have, ResNet-18 and Faster R-CNN, become verified archives."""

import tempfile
from pathlib import Path

import orjson
import pytest
import torch
from conftest import RunHere, build_without_timing
from model_archiver.model_archiver_config import ModelArchiverConfig
from model_archiver.model_packaging import generate_model_archive
from torch import nn
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FasterRCNN
from torchvision.models.resnet import BasicBlock, ResNet

from mar_tools.archives.archive import check_archive
from mar_tools.models.random_weights import spread_class_scores

CLASSIFIER = """
from torchvision.models.resnet import BasicBlock, ResNet


class ImageClassifier(ResNet):
    def __init__(self):
        super().__init__(BasicBlock, [2, 2, 2, 2])
"""
DETECTOR = """
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FasterRCNN


class FRCNNObjectDetector(FasterRCNN):
    def __init__(self, num_classes=91, **kwargs):
        backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None)
        super().__init__(backbone, num_classes, min_size=256, max_size=320, **kwargs)
"""


def new_classifier() -> nn.Module:
    network: nn.Module = ResNet(BasicBlock, [2, 2, 2, 2])
    return network


def new_detector() -> nn.Module:
    network: nn.Module = FasterRCNN(resnet_fpn_backbone(backbone_name="resnet18", weights=None), 91)
    return network


@pytest.mark.parametrize(
    ("handler", "definition", "new_network", "classes"),
    [("image_classifier", CLASSIFIER, new_classifier, 1000), ("object_detector", DETECTOR, new_detector, 91)],
    ids=["resnet18", "fasterrcnn"],
)
def test_a_stock_archive_becomes_a_verified_one_by_two_commands(
    handler: str,
    definition: str,
    new_network: type,
    classes: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run_here: RunHere,
) -> None:
    torch.manual_seed(0)
    network = new_network()
    spread_class_scores(network)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    (tmp_path / "model.py").write_text(definition)
    index = {str(number): f"label {number}" for number in range(classes)}
    (tmp_path / "index_to_name.json").write_bytes(orjson.dumps(index))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where the archiver works
    files = {"serialized_file": "weights.pth", "model_file": "model.py", "extra_files": "index_to_name.json"}
    generate_model_archive(ModelArchiverConfig("stock", handler, version="1.0", export_path=str(tmp_path), **files))
    written = run_here("new_recipe.py", "stock.mar")
    assert written.returncode == 0, written.stderr
    recipe = tmp_path / "stock" / "stock.yaml"
    assert len(orjson.loads((recipe.parent / "stock.labels.json").read_bytes())) == classes
    assert check_archive(build_without_timing(recipe, "eager", tmp_path)) == ("stock", "1.0")
