"""The archives of the stock handlers, loaded as those load them, and what is expected of a detector."""

import importlib.util
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import PIL.Image
import pytest
import torch
from conftest import TinyModel
from torchvision.transforms import ToTensor

from lab.peers.peers import PEERS
from mar_tools.exporting.export import export_model
from mar_tools.load_testing.answers import expect_library_boxes
from mar_tools.load_testing.images import load_test_images
from mar_tools.models.checkpoints import load_checkpoint
from mar_tools.models.recipes import read_recipe

ROOT = Path(__file__).resolve().parents[2]
SSDLITE = ROOT / "recipes" / "ssdlite320_mobilenet_v3_large.yaml"


def unpack_stock_archive(export: Path, folder: Path) -> Path:
    command = [sys.executable, str(PEERS / "stock" / "build_archive.py"), str(export), str(folder / "model.mar")]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr
    zipfile.ZipFile(folder / "model.mar").extractall(folder)
    return folder


@pytest.fixture(scope="module")
def detector_export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = read_recipe(SSDLITE, weights="random")
    return export_model(recipe, load_checkpoint(recipe), "eager", "fp32", tmp_path_factory.mktemp("exports"))


def test_the_stock_classifier_computes_what_the_network_does(tiny_classifier: TinyModel, tmp_path: Path) -> None:
    folder = unpack_stock_archive(tiny_classifier.folders["eager"], tmp_path)
    pixels = torch.rand(2, 3, 224, 224)
    with torch.inference_mode():
        stock = torch.jit.load(str(folder / "model.pt"))(pixels)  # type: ignore[no-untyped-call]
        assert torch.allclose(stock, tiny_classifier.checkpoint.network(pixels), atol=1e-5)


def test_the_stock_detector_finds_what_is_expected_of_it(detector_export: Path, tmp_path: Path) -> None:
    """Loaded and asked as TorchServe's object_detector does it."""
    folder = unpack_stock_archive(detector_export, tmp_path)
    specification = importlib.util.spec_from_file_location("stock_model", folder / "model.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    (definition,) = (
        entry for entry in vars(module).values() if isinstance(entry, type) and entry.__module__ == "stock_model"
    )
    network = definition()
    network.load_state_dict(torch.load(folder / "model.pth"))
    network.eval()
    images = load_test_images(2)
    for image, expected in zip(images, expect_library_boxes(detector_export, images), strict=True):
        pixels = ToTensor()(PIL.Image.open(io.BytesIO(image)))
        with torch.inference_mode():
            (found,) = network(torch.stack([pixels]))
        kept = found["scores"] >= 0.5
        assert kept.any()
        assert [entry.score for entry in expected.found] == pytest.approx(found["scores"][kept].tolist(), abs=1e-4)
        assert [entry.class_id for entry in expected.found] == found["labels"][kept].tolist()
