"""Masks and keypoints against torchvision's own answers, on tiny networks with random weights."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import instance_networks
import numpy as np
import orjson
import pytest
import torch
import yaml
from conftest import QUICK_BACKENDS
from fakes import encode_image, generate_image
from instance_networks import tiny_keypoint_rcnn, tiny_mask_rcnn
from numpy.typing import NDArray
from pycocotools import mask as coco_masks
from safetensors.torch import save_file
from test_torchvision_agrees import ROUNDED_PX, assert_same_detections, handler_of, predict, to_float
from torch import Tensor

from mar_tools.exporting.export import export_model
from mar_tools.models.checkpoints import load_checkpoint
from mar_tools.models.recipes import read_recipe
from mar_tools.models.sources.torchvision import default_options, preprocessing_of_detector
from mar_tools.verification.gate import verify_export
from mar_tools.verification.observations import load_handler
from object_detection import ObjectDetectionHandler
from vision_serving.config import HandlerConfig
from vision_serving.errors import BackendError, ConfigError, ImageDecodeError
from vision_serving.handler import VisionHandler
from vision_serving.pictures.decoding import Image
from vision_serving.predictions import Detections, KeypointDetection, MaskDetection
from vision_serving.requests.payload import Payload

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # in pycocotools
NETWORKS: dict[str, Callable[[], Any]] = {"masks": tiny_mask_rcnn, "keypoints": tiny_keypoint_rcnn}
# The first are of model sizes; the others are made smaller, larger, and smaller by their longer side.
SIZES_HW = [(96, 120), (144, 96), (96, 120), (192, 240), (60, 75), (100, 400)]
LEAST_IOU = 0.99
KEYPOINT_PX = 0.5


@cache
def network(kind: str) -> Any:
    return NETWORKS[kind]()


@cache
def image(index: int) -> Image:
    return generate_image(index + 20, SIZES_HW[index])


@cache
def expected_of(kind: str, index: int) -> dict[str, Tensor]:
    """torchvision's answer in source pixels. It sees the pixels that the handler made: it would not round them."""
    own, source = network(kind), image(index)
    pixels = handler(kind).preprocess([source]).pixels[0]
    with torch.inference_mode():
        images, _ = own.transform([to_float(pixels.numpy())])
        features = own.backbone(images.tensors)
        proposals, _ = own.rpn(images, features)
        found, _ = own.roi_heads(features, proposals, images.image_sizes)
        [answer] = own.transform.postprocess(found, images.image_sizes, [source.shape[:2]])
    assert images.image_sizes == [pixels.shape[:2]], "resized twice"
    expected: dict[str, Tensor] = answer
    return expected


@cache
def handler(kind: str) -> VisionHandler:
    config = HandlerConfig(
        task="detection",
        instances=kind,  # type: ignore[arg-type]
        backend="graph",
        artifact="",
        preprocessing=preprocessing_of_detector(network(kind).transform),
        options={"score_threshold": network(kind).roi_heads.score_thresh, **default_options(network(kind))},
    )
    return handler_of(ObjectDetectionHandler(), network(kind), config)


def decode(detection: MaskDetection) -> NDArray[np.bool_]:
    assert detection.mask is not None
    decoded: NDArray[np.uint8] = coco_masks.decode(vars(detection.mask))
    return decoded.astype(np.bool_)


def iou(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    union = (first | second).sum()
    return float((first & second).sum() / union) if union else 1.0


def assert_same_masks(found: Detections, expected: dict[str, Tensor]) -> None:
    for detection, mask in zip(found.detections, expected["masks"], strict=True):
        assert isinstance(detection, MaskDetection)
        assert iou(decode(detection), (mask[0] >= 0.5).numpy()) >= LEAST_IOU


def assert_same_keypoints(found: Detections, expected: dict[str, Tensor]) -> None:
    answers = zip(found.detections, expected["keypoints"], expected["keypoints_scores"], strict=True)
    for detection, keypoints, scores in answers:
        assert isinstance(detection, KeypointDetection)
        values = torch.tensor(detection.keypoints)
        assert float((values[:, :2] - keypoints[:, :2]).abs().max()) <= KEYPOINT_PX
        torch.testing.assert_close(values[:, 2], scores.sigmoid(), rtol=1e-3, atol=1e-3)


ASSERT_SAME = {"masks": assert_same_masks, "keypoints": assert_same_keypoints}


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_random_network_is_a_fair_test(kind: str) -> None:
    """Some boxes, of several sizes, without ties; masks that are neither nothing nor all of their boxes."""
    every = [expected_of(kind, index) for index in range(len(SIZES_HW))]
    for expected in every:
        assert 3 <= len(expected["scores"]) <= 8
        assert float(expected["scores"].diff().abs().min()) > 1e-4
    if kind == "masks":
        assert len({len(expected["scores"]) for expected in every}) > 1, "a batch needs rows that stand for nothing"
        for expected in every:
            areas = (expected["masks"] >= 0.5).float().sum(dim=(1, 2, 3))
            sides = expected["boxes"][:, 2:] - expected["boxes"][:, :2]
            shares = areas / sides.prod(dim=1)
            assert float(shares.median()) > 0.05
            assert float(shares.median()) < 0.95


@pytest.mark.parametrize("index", range(len(SIZES_HW)))
@pytest.mark.parametrize("kind", NETWORKS)
def test_an_image_alone_gets_torchvisions_instances(kind: str, index: int) -> None:
    [found] = predict(handler(kind), [image(index)])
    assert_same_detections(found, expected_of(kind, index), 4 * ROUNDED_PX, 1e-4)
    ASSERT_SAME[kind](found, expected_of(kind, index))


@pytest.mark.parametrize("kind", NETWORKS)
def test_in_a_batch_of_several_sizes_and_a_bad_image_each_gets_its_own(kind: str) -> None:
    encoded = [encode_image(image(index)) for index in range(len(SIZES_HW))]
    payloads = [Payload(images=(data,)) for data in [*encoded[:2], b"no image", *encoded[2:]]]
    found = [outcome.items[0] for outcome in handler(kind).predict(payloads)]
    assert isinstance(found.pop(2), ImageDecodeError)
    for index, item in enumerate(found):
        assert isinstance(item, Detections)
        assert_same_detections(item, expected_of(kind, index), 4 * ROUNDED_PX, 1e-4)
        ASSERT_SAME[kind](item, expected_of(kind, index))


def test_without_masks_the_answer_is_a_plain_detectors() -> None:
    [masks] = predict(handler("masks"), [image(0)])
    [boxes] = predict(handler("masks"), [image(0)], mask_format="none")
    assert [vars(entry) for entry in boxes.detections] == [
        {name: value for name, value in vars(entry).items() if name != "mask"} for entry in masks.detections
    ]


def test_boxes_that_the_model_would_not_answer_have_no_mask() -> None:
    [found] = predict(handler("masks"), [image(0)], iou_threshold=1.0, score_threshold=0.0, max_detections=50)
    assert len(found.detections) == 50
    masked = [entry for entry in found.detections if entry.mask is not None]
    assert_same_detections(Detections(tuple(masked), found.image), expected_of("masks", 0), 4 * ROUNDED_PX, 1e-4)


# Backends

# Both kinds are one graph with another head.
EXPORTED = [*(("masks", backend) for backend in QUICK_BACKENDS), ("keypoints", "openvino")]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Exports of each kind with eager's."""
    return {kind: export(tmp_path_factory.mktemp(kind), kind, "eager") for kind in NETWORKS}


@pytest.fixture(scope="module", params=EXPORTED, ids="-".join)
def exported(request: pytest.FixtureRequest, folders: dict[str, Path]) -> tuple[Path, Path]:
    """The exports of eager and of another backend."""
    kind, backend = request.param
    return folders[kind], export(folders[kind].parents[2], kind, backend)


def export(folder: Path, kind: str, backend: str, **changes: Any) -> Path:
    recipe = read_recipe(write_instance_recipe(folder, kind, **changes))
    return export_model(recipe, load_checkpoint(recipe), backend, "fp32", folder / "exports")


def write_instance_recipe(folder: Path, kind: str, **changes: Any) -> Path:
    labels = ["background", "cat", "dog", "bird"] if kind == "masks" else ["background", "person"]
    (folder / "labels.json").write_bytes(orjson.dumps(labels))
    save_file(network(kind).state_dict(), folder / "weights.safetensors")
    recipe = {
        "name": f"tiny_{kind}",
        "task": "detection",
        "model": {
            "source": "python",
            "file": instance_networks.__file__,
            "class": NETWORKS[kind].__name__,
            "weights": "weights.safetensors",
        },
        "labels": "labels.json",
        "preprocessing": preprocessing_of_detector(network(kind).transform).model_dump(mode="json", exclude_none=True),
        "verification": {"count": 2},
        **changes,
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder / "recipe.yaml"


def test_a_backend_gives_the_instances_that_eager_gives(exported: tuple[Path, Path]) -> None:
    reference, candidate = map(load_handler, exported)
    output = {"masks": "masks", "keypoints": "heatmaps"}[str(candidate.config.instances)]
    for indices in ([0, 2], [1], [0]):
        pixels = torch.from_numpy(np.stack([image(index) for index in indices]))
        expected, found = reference.backend.infer(pixels), candidate.backend.infer(pixels)
        assert found.keys() == expected.keys()
        assert torch.equal(found["instances"], expected["instances"])
        torch.testing.assert_close(found[output], expected[output], rtol=1e-3, atol=1e-3)


def test_the_verification_compares_instances(exported: tuple[Path, Path]) -> None:
    reference, candidate = map(verify_export, exported)
    for report in (reference, candidate):
        assert report["passed"], report["failures"]
        assert report["bounds"].keys() & {"min_mean_mask_iou", "max_keypoint_distance"}
    assert reference["measured"].get("mean_mask_iou", 1.0) == 1.0
    assert reference["measured"].get("keypoint_distance", 0.0) == 0.0


def test_aotinductor_says_why_it_cannot(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="aotinductor needs images of one size"):
        export(tmp_path, "masks", "aotinductor")


def test_a_recipe_may_choose_the_form_of_masks_where_there_are_masks(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown key 'mask_format'"):
        export(tmp_path, "keypoints", "eager", options={"mask_format": "polygons"})
    handler = load_handler(export(tmp_path, "masks", "eager", options={"mask_format": "polygons"}))
    assert vars(handler.read_options({}))["mask_format"] == "polygons"
    assert vars(handler.read_options({"mask_format": "rle"}))["mask_format"] == "rle"
