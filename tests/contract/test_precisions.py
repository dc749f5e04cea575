"""Every precision of every backend that is here, on a tiny model: verified, at any batch size, alike in any batch."""

import pytest
import torch
from conftest import INSTALLED, TinyModel
from fakes import generate_image

from mar_tools.exporting.export import export_model
from mar_tools.exporting.exporters import list_candidates
from mar_tools.verification.gate import verify_export
from mar_tools.verification.observations import load_handler
from vision_serving.config import DeviceType, Precision

LOWER = [("cpu", *pair) for pair in list_candidates("cpu") if pair[1] != "fp32"]
ON_GPU = [
    pytest.param(
        "cuda", *pair, marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no NVIDIA GPU")
    )
    for pair in list_candidates("cuda")
]


@pytest.mark.parametrize(("device_type", "backend", "precision"), [*LOWER, *ON_GPU])
def test_a_precision_is_verified_and_takes_any_batch(
    tiny_classifier: TinyModel, device_type: DeviceType, backend: str, precision: Precision
) -> None:
    if backend not in INSTALLED:
        pytest.skip(f"the package of backend {backend} is not installed")
    model = tiny_classifier
    exports = model.folders["eager"].parents[1]
    folder = export_model(model.recipe, model.checkpoint, backend, precision, exports, device_type)
    report = verify_export(folder)
    assert report["passed"], report["failures"]
    handler = load_handler(folder)
    images = [generate_image(seed, (40 + seed, 50)) for seed in range(3)]
    together = handler.inference(handler.preprocess(images))["logits"]
    alone = torch.cat([handler.inference(handler.preprocess([image]))["logits"] for image in images])
    spread = float(together.std())
    # Dynamic ranges aside, a batch decides nothing but the order of sums, which 16 bits round.
    assert float((together - alone).abs().max()) < 0.05 * spread
