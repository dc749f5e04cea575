"""Masks and keypoints of a real server, on the page as in its answers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import instance_networks
import orjson
import pytest
import yaml
from conftest import build_without_timing
from safetensors.torch import save_file

from e2e.conftest import EXAMPLES, Service, serve
from e2e.test_requests import OCTETS
from mar_tools.models.sources.torchvision import preprocessing_of_detector
from mar_tools.playground.page_server import PageServer

from .conftest import Shown, show_pages

pytestmark = pytest.mark.lab  # two builds and a server of its own
PICTURE = (EXAMPLES / "photographs" / "00_astronaut.jpg").read_bytes()
NETWORKS: dict[str, Any] = {
    "masks": (instance_networks.tiny_mask_rcnn, ["background", "cat", "dog", "bird"]),
    "keypoints": (instance_networks.tiny_keypoint_rcnn, ["background", "person"]),
}


def build(kind: str, folder: Path) -> Path:
    make, labels = NETWORKS[kind]
    network = make()
    folder.mkdir()
    (folder / "labels.json").write_bytes(orjson.dumps(labels))
    save_file(network.state_dict(), folder / "weights.safetensors")
    source = {"source": "python", "file": instance_networks.__file__, "class": make.__name__}
    recipe = {
        "name": kind,
        "task": "detection",
        "model": {**source, "weights": "weights.safetensors"},
        "labels": "labels.json",
        "preprocessing": preprocessing_of_detector(network.transform).model_dump(mode="json", exclude_none=True),
        "verification": {"count": 2},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return build_without_timing(folder / "recipe.yaml", "eager", folder / "built")


@pytest.fixture(scope="module")
def instances(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("instances")
    with serve([build(kind, folder / kind) for kind in NETWORKS], tmp_path_factory.mktemp("service")) as service:
        yield service


@pytest.fixture(scope="module")
def page_server(instances: Service) -> Iterator[PageServer]:
    with show_pages(instances) as server:
        yield server


@pytest.mark.parametrize("kind", NETWORKS)
def test_each_instance_of_the_answer_is_drawn(kind: str, shown: Shown, instances: Service) -> None:
    found = instances.post(kind, PICTURE, OCTETS).json()["detections"]
    shown.page.locator(".model").select_option(label=kind)
    shown.page.locator(".facts", has_text="detection").wait_for()
    shown.give(PICTURE, "astronaut.jpg")
    shown.page.locator(".results button").first.wait_for()
    assert shown.page.locator(".overlay .item").count() == len(found) > 1
    if kind == "masks":
        assert shown.page.locator(".overlay .mask").count() == len(found)
    else:
        points = [point for one in found for point in one["keypoints"] if point[2] >= 0.5]
        assert shown.page.locator(".overlay .point:not(.around)").count() == len(points) > 0
    assert shown.complaints == []
