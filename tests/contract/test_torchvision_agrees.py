"""Our graphs and postprocessing against torchvision's own models, with random weights and small sizes."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from fakes import encode_image, generate_image
from safetensors.torch import save_model
from torch import Tensor, nn
from torchvision import models
from torchvision.transforms import functional

from image_classification import ImageClassificationHandler
from mar_tools.models.sources.torchvision import default_options, preprocessing_of_detector, preprocessing_of_preset
from mar_tools.models.weight_files import look_into
from mar_tools.models.weights import load_weights
from object_detection import ObjectDetectionHandler
from vision_serving.config import HandlerConfig, PreprocessingConfig
from vision_serving.graphs.construction import build_graph
from vision_serving.graphs.sources import NetworkSource, build_network
from vision_serving.handler import VisionHandler
from vision_serving.pictures.decoding import Image
from vision_serving.predictions import Classification, Detections
from vision_serving.requests.payload import Payload

NUM_CLASSES = 5
NO_FOLDER = Path()  # torchvision's builders need none


class GraphBackend:
    """The graph as it stands: what the eager backend runs, without its files."""

    def __init__(self, graph: nn.Module) -> None:
        self.graph = graph

    def infer(self, pixels: Tensor) -> dict[str, Tensor]:
        with torch.inference_mode():
            outputs: dict[str, Tensor] = self.graph(pixels)
        return outputs


def handler_of(handler: VisionHandler, network: nn.Module, config: HandlerConfig) -> VisionHandler:
    labels = [str(index) for index in range(NUM_CLASSES)]
    backend = GraphBackend(build_graph(network, config.task, config.preprocessing))
    handler.assemble(config, labels, backend)  # type: ignore[arg-type]
    return handler


def predict(handler: VisionHandler, images: Sequence[Image], **options: Any) -> list[Any]:
    payloads = [Payload(images=(encode_image(image),), options=options) for image in images]
    return [outcome.items[0] for outcome in handler.predict(payloads)]


# Classification


@pytest.mark.parametrize("size_hw", [(480, 640), (300, 250), (100, 130)], ids=str)
def test_a_classifier_scores_as_torchvision_with_its_own_preset(size_hw: tuple[int, int]) -> None:
    torch.manual_seed(0)
    source = NetworkSource(source="torchvision", name="resnet18", arguments={"num_classes": NUM_CLASSES})
    network = build_network(source, NO_FOLDER)
    nn.init.normal_(network.fc.weight, std=0.05)  # type: ignore[union-attr, arg-type]
    preset = models.ResNet18_Weights.DEFAULT.transforms()
    config = HandlerConfig(
        task="classification", backend="graph", artifact="", preprocessing=preprocessing_of_preset(preset)
    )
    image = generate_image(3, size_hw)
    with torch.inference_mode():
        expected = network(preset(PIL.Image.fromarray(image))[None])[0].softmax(-1)
    [found] = predict(handler_of(ImageClassificationHandler(), network, config), [image])
    assert isinstance(found, Classification)
    assert len(found.classes) == NUM_CLASSES
    assert float(expected.max()) < 0.99, "a saturated softmax would hide differences"
    for entry in found.classes:
        # A level of difference in one pixel of 200 after resizing; equal pixels agree to 1e-6.
        assert entry.score == pytest.approx(float(expected[entry.class_id]), abs=2e-3)


# Detection


def spread(weights: Tensor, std: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        weights.copy_(torch.randn(weights.shape, generator=generator) * std)


def spread_heads(network: Any) -> None:
    """Give the class scores a spread that passes thresholds, without ties."""
    for module in network.modules():
        if type(module).__name__ == "SSDLiteClassificationHead":
            for index, block in enumerate(module.module_list):
                spread(block[1].weight, 0.05, index)
        if type(module).__name__ in ("RetinaNetClassificationHead", "FCOSClassificationHead"):
            spread(module.cls_logits.weight, 0.04, 1)
            nn.init.constant_(module.cls_logits.bias, -1.0)
        if type(module).__name__ == "FCOSRegressionHead":
            nn.init.constant_(module.bbox_reg.bias, 3.0)
        if type(module).__name__ == "FastRCNNPredictor":
            spread(module.cls_score.weight, 0.2, 2)
            spread(module.bbox_pred.weight, 0.02, 3)
        if type(module).__name__ == "RPNHead":
            spread(module.cls_logits.weight, 0.2, 4)
            spread(module.bbox_pred.weight, 0.05, 5)


def settle(network: nn.Module, images: Sequence[Image]) -> None:
    """Batch-norm statistics of real activations: without them those of a random network explode or vanish."""
    handles = []
    for module in network.modules():
        if type(module).__name__ in ("FrozenBatchNorm2d", "BatchNorm2d"):
            handles.append(module.register_forward_pre_hook(_take_statistics))
    with torch.inference_mode():
        network([to_float(image) for image in images])
    for handle in handles:
        handle.remove()


def _take_statistics(module: Any, inputs: tuple[Tensor, ...]) -> None:
    values = inputs[0]
    module.running_mean.copy_(values.mean(dim=(0, 2, 3)))
    module.running_var.copy_(values.var(dim=(0, 2, 3), unbiased=False))


def to_float(image: Image) -> Tensor:
    pixels: Tensor = functional.to_tensor(PIL.Image.fromarray(image))
    return pixels


SMALL = {"min_size": 128, "max_size": 192}
DETECTORS: dict[str, dict[str, Any]] = {
    "ssdlite320_mobilenet_v3_large": {"score_thresh": 0.3, "detections_per_img": 10},
    "fasterrcnn_mobilenet_v3_large_320_fpn": {**SMALL, "box_score_thresh": 0.25, "box_detections_per_img": 10},
    "retinanet_resnet50_fpn": {**SMALL, "score_thresh": 0.3, "topk_candidates": 60, "detections_per_img": 10},
    "fcos_resnet50_fpn": {**SMALL, "score_thresh": 0.3, "topk_candidates": 60, "detections_per_img": 10},
}
# Images of model sizes: the shorter side is min_size, or the longer side max_size, so that nothing is resized.
SIZES_HW = {name: [(128, 160), (128, 128), (192, 128), (128, 160)] for name in DETECTORS}
SIZES_HW["ssdlite320_mobilenet_v3_large"] = [(320, 320)] * 4


@cache
def detector(name: str) -> Any:
    torch.manual_seed(0)
    source = NetworkSource(source="torchvision", name=name, arguments={"num_classes": NUM_CLASSES, **DETECTORS[name]})
    network = build_network(source, NO_FOLDER)
    settle(network, images_for(name)[:2])
    spread_heads(network)
    return network


@cache
def images_for(name: str) -> tuple[Image, ...]:
    return tuple(generate_image(seed + 60, size_hw) for seed, size_hw in enumerate(SIZES_HW[name]))


@cache
def expected_of(name: str) -> tuple[dict[str, Tensor], ...]:
    """torchvision's answer to each image alone."""
    with torch.inference_mode():
        return tuple(detector(name)([to_float(image)])[0] for image in images_for(name))


def score_threshold(network: Any) -> float:
    owner = getattr(network, "roi_heads", network)
    return float(owner.score_thresh)


@cache
def detection_handler(name: str) -> VisionHandler:
    network = detector(name)
    config = HandlerConfig(
        task="detection",
        backend="graph",
        artifact="",
        preprocessing=preprocessing_of_detector(network.transform),
        candidates_per_class=network.topk_candidates if type(network).__name__ == "SSD" else None,
        options={"score_threshold": score_threshold(network), **default_options(network)},
    )
    return handler_of(ObjectDetectionHandler(), network, config)


def assert_same_detections(found: Detections, expected: dict[str, Tensor], box_px: float, score: float) -> None:
    assert [entry.class_id for entry in found.detections] == expected["labels"].tolist()
    boxes = torch.tensor([entry.box for entry in found.detections])
    scores = torch.tensor([entry.score for entry in found.detections])
    assert (boxes - expected["boxes"]).abs().max() <= box_px
    assert (scores - expected["scores"]).abs().max() <= score


# Answers are rounded to 0.01 px and 1e-6.
ROUNDED_PX = 0.005 + 1e-3
# float32 through 50 layers whose convolutions see another memory layout than torchvision's; at most 1.5e-5 was seen.
SCORE_NOISE = 3e-5


@pytest.mark.parametrize("name", DETECTORS)
def test_the_random_detector_is_a_fair_test(name: str) -> None:
    """Boxes of several classes, without ties that two sorts may order differently."""
    for expected in expected_of(name):
        assert len(expected["scores"]) == 10
        assert float((expected["boxes"][:, 2:] - expected["boxes"][:, :2]).mean()) > 10
        assert float(expected["scores"].diff().abs().min()) > 6e-5
    assert len({label for expected in expected_of(name) for label in expected["labels"].tolist()}) >= 2


@pytest.mark.parametrize("name", DETECTORS)
def test_an_image_alone_gets_torchvisions_boxes_labels_and_scores_in_order(name: str) -> None:
    [found] = predict(detection_handler(name), images_for(name)[:1])
    assert_same_detections(found, expected_of(name)[0], ROUNDED_PX, SCORE_NOISE)


@pytest.mark.parametrize("name", DETECTORS)
def test_an_image_in_a_batch_of_several_sizes_gets_what_it_gets_alone(name: str) -> None:
    found = predict(detection_handler(name), images_for(name))
    assert all(isinstance(item, Detections) for item in found)
    for item, expected in zip(found, expected_of(name), strict=True):
        # Other batch sizes take other convolution kernels.
        assert_same_detections(item, expected, ROUNDED_PX + 0.05, 1e-4)


@pytest.mark.parametrize("name", DETECTORS)
def test_graph_boxes_are_torchvisions_before_rounding(name: str) -> None:
    """Every torchvision box is among the graph's candidates, to 2e-3 px."""
    pixels = torch.from_numpy(images_for(name)[1])[None]
    outputs = detection_handler(name).backend.infer(pixels)
    expected = expected_of(name)[1]
    distance = torch.cdist(outputs["boxes"][0], expected["boxes"], p=float("inf"))
    assert float(distance.min(dim=0).values.max()) <= 2e-3
    score_distance = (outputs["scores"][0].reshape(-1, 1) - expected["scores"]).abs()
    assert float(score_distance.min(dim=0).values.max()) <= SCORE_NOISE


@pytest.mark.parametrize("name", DETECTORS)
def test_an_image_of_twice_the_model_size_gets_its_boxes_twice_as_large(name: str) -> None:
    """Of doubled pixels both resizes give back the original ones exactly, so nothing but the boxes changes."""
    image = images_for(name)[0]
    doubled = np.kron(image, np.ones((2, 2, 1), dtype=np.uint8))
    with torch.inference_mode():
        expected = detector(name)([to_float(doubled)])[0]
    [found] = predict(detection_handler(name), [doubled])
    assert_same_detections(found, expected, ROUNDED_PX * 2, SCORE_NOISE)


@pytest.mark.parametrize("name", DETECTORS)
def test_no_candidate_leaves_the_model_image(name: str) -> None:
    image = images_for(name)[0]
    boxes = detection_handler(name).backend.infer(torch.from_numpy(image)[None])["boxes"]
    height, width = image.shape[:2]
    assert float(boxes.min()) >= 0
    assert float(boxes[..., 0::2].max()) <= width
    assert float(boxes[..., 1::2].max()) <= height


@pytest.mark.parametrize("name", DETECTORS)
def test_the_background_is_never_an_answer(name: str) -> None:
    options = {"score_threshold": 0.0, "max_detections": 1000}
    outputs = [predict(detection_handler(name), images_for(name)[:1], **options)[0]]
    has_background = not name.startswith(("retinanet", "fcos"))  # whose class 0 is torchvision's class 0
    class_ids = {entry.class_id for item in outputs for entry in item.detections}
    assert class_ids
    assert not (has_background and 0 in class_ids)


def test_pixels_reach_the_network_as_torchvision_normalises_them() -> None:
    image = generate_image(0, (16, 24))
    config = PreprocessingConfig.model_validate({"resize": {"mode": "exact", "size": [16, 24]}})
    seen: list[Tensor] = []

    class Spy(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            seen.append(images)
            return images.mean(dim=(2, 3))

    build_graph(Spy(), "classification", config)(torch.from_numpy(np.stack([image])))
    expected = functional.normalize(to_float(image), list(config.mean), list(config.std))
    torch.testing.assert_close(seen[0][0], expected, rtol=0, atol=1e-6)


def test_a_network_that_asks_for_the_version_of_its_weights_gets_them_from_safetensors(tmp_path: Path) -> None:
    torch.manual_seed(0)
    trained = models.mnasnet0_5(num_classes=3).eval()
    save_model(trained, str(tmp_path / "weights.safetensors"))
    rebuilt = models.mnasnet0_5(num_classes=3).eval()
    load_weights(rebuilt, look_into(tmp_path / "weights.safetensors"))
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(rebuilt(images), trained(images))
