"""A trained detector, packed for the object_detector of TorchServe, becomes a verified archive by two commands."""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import RunHere
from model_archiver.model_archiver_config import ModelArchiverConfig
from model_archiver.model_packaging import generate_model_archive
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from examples.digits import LABELS, load_digit_split
from examples.digits_detection.detector import DigitDetector
from examples.digits_detection.scenes import draw_scene
from mar_tools.command_line import ROOT

MODEL = """
from torch import nn
from torchvision.models.detection.faster_rcnn import FasterRCNN
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.models.resnet import BasicBlock
from torchvision.ops import Conv2dNormActivation, MultiScaleRoIAlign


class DigitsFasterRCNN(FasterRCNN):
    def __init__(self):
        narrow = (Conv2dNormActivation(wide, wide * 2 if wide > 3 else 16, 3, 2) for wide in (3, 16, 32))
        backbone = nn.Sequential(*narrow, BasicBlock(64, 64), BasicBlock(64, 64))
        backbone.out_channels = 64
        anchors = AnchorGenerator(((20, 40, 80),), ((0.7, 1.3),))
        pool = MultiScaleRoIAlign(["0"], 5, 2)
        few = {f"rpn_{when}_nms_top_n_{mode}": 200 for when in ("pre", "post") for mode in ("train", "test")}
        few.update(box_batch_size_per_image=64, rpn_batch_size_per_image=64)
        super().__init__(
            backbone, 11, min_size=192, max_size=256, rpn_anchor_generator=anchors, box_roi_pool=pool, **few
        )
"""
DETECTION = ROOT / "examples" / "digits_detection"
STEPS, BATCH, SCENES = 240, 2, 240
IMAGES, THRESHOLD = 8, 0.5
SCORES, PIXELS = 0.01, 1.0  # a server resizes in whole levels of a byte, torchvision's transform in fractions of one


def new_network() -> nn.Module:
    """Return the network with the trained first layers of the example's detector, which are of the same form."""
    defined: dict[str, Any] = {}
    exec(MODEL, defined)
    network: nn.Module = defined["DigitsFasterRCNN"]()
    trained = load_file(DETECTION / "weights.safetensors")
    names = [name for name in DigitDetector().state_dict() if ".to_stride_8." in f".{name}"]
    layers = [trained.get(name, torch.tensor(0)) for name in names]  # counters are not in the file
    own = network.get_submodule("backbone").state_dict()
    assert [values.shape for values in own.values()] == [values.shape for values in layers]
    network.get_submodule("backbone").load_state_dict(dict(zip(own, layers, strict=True)))
    return network


def train(network: nn.Module) -> None:
    """Train what follows the first layers, which stay."""
    digits, rng = load_digit_split()[0], np.random.default_rng(0)
    scenes = [draw_scene(digits, rng) for _ in range(SCENES)]
    network.train()
    network.get_submodule("backbone").eval().requires_grad_(False)
    parameters = [values for values in network.parameters() if values.requires_grad]
    optimizer = torch.optim.AdamW(parameters, 1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.5e-3, total_steps=STEPS)
    for step in range(STEPS):
        batch = [scenes[(step * BATCH + place) % SCENES] for place in range(BATCH)]
        images = [to_tensor(scene.image) for scene in batch]
        targets = [
            {"boxes": torch.from_numpy(scene.boxes_xyxy), "labels": torch.from_numpy(scene.class_ids) + 1}
            for scene in batch
        ]
        losses: dict[str, Tensor] = network(images, targets)
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()
        schedule.step()
    network.eval()


def to_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1) / 255


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module]:
    """A stock archive, and its network."""
    folder = tmp_path_factory.mktemp("stock_detector")
    torch.manual_seed(0)
    network = new_network()
    train(network)
    torch.save(network.state_dict(), folder / "digits.pth")
    (folder / "model.py").write_text(MODEL)
    index = {str(number): label for number, label in enumerate(LABELS, 1)}
    (folder / "index_to_name.json").write_text(json.dumps(index))
    (folder / "work").mkdir()
    files = {"serialized_file": "digits.pth", "model_file": "model.py", "extra_files": "index_to_name.json"}
    located = {key: str(folder / name) for key, name in files.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder / "work"))
        config = ModelArchiverConfig("stock", "object_detector", version="1.0", export_path=str(folder), **located)
        generate_model_archive(config)
    return folder / "stock.mar", network


def test_a_trained_stock_detector_answers_as_torchvision_does(
    trained: tuple[Path, nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_here: RunHere
) -> None:
    stock, network = trained
    monkeypatch.chdir(tmp_path)
    written = run_here("new_recipe.py", stock)
    assert written.returncode == 0, written.stderr
    assert f"next: python {ROOT / 'scripts' / 'build_model.py'} stock/stock.yaml" in written.stdout
    one = ("--backend", "openvino", "--precision", "fp32")  # all of them take a quarter of an hour
    built = run_here("build_model.py", "stock/stock.yaml", "--model-store", tmp_path / "store", *one)
    assert built.returncode == 0, built.stderr
    pictures = sorted((DETECTION / "heldout").glob("*.jpg"))[:IMAGES]
    answered = run_here("predict_images.py", "--archive", tmp_path / "store" / "stock.mar", *pictures, "--json")
    assert answered.returncode == 0, answered.stderr
    answers = {Path(row["file"]).name: row for row in map(json.loads, answered.stdout.splitlines())}
    found = 0
    for picture in pictures:
        with torch.inference_mode(), Image.open(picture) as image:
            (own,) = network([to_tensor(image)])
            network.roi_heads.nms_thresh = 1.0  # type: ignore[union-attr]
            (all_boxes,) = network([to_tensor(image)])
            network.roi_heads.nms_thresh = 0.5  # type: ignore[union-attr]
        # Of two boxes of one digit with almost one score, rounding decides which is kept.
        columns = (all_boxes[key].tolist() for key in ("labels", "scores", "boxes"))
        rows = [
            (LABELS[label - 1], pytest.approx(score, abs=SCORES), pytest.approx(box, abs=PIXELS))
            for label, score, box in zip(*columns)
        ]
        sure = int((own["scores"] >= THRESHOLD + SCORES).sum())
        most = int((own["scores"] >= THRESHOLD - SCORES).sum())
        detections = answers[picture.name]["detections"]
        assert sure <= len(detections) <= most  # the others are at the threshold
        for entry in detections:
            assert (entry["label"], entry["score"], entry["box"]) in rows
        found += len(detections)
    assert found >= IMAGES  # of one to eight digits in each
