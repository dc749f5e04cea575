"""What an archive says of its verification is what a worker would sample of the same pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeHandler
from fakes import BLUE, GREEN, RED, encode_image, solid_image

from mar_tools.distributions import Distributions, count_images
from mar_tools.drift.samples import see_image
from mar_tools.verification.distributions import describe_answers
from mar_tools.verification.observations import observe
from vision_serving.answers.responses import ModelIdentity
from vision_serving.config import ImageLimits
from vision_serving.options import Task
from vision_serving.requests.payload import Payload
from vision_serving.worker.sample_records import HARMLESS, Taken, make_record
from vision_serving.worker.service import TorchServeHandler

CROWD = (90, 120, 150)
PURPLE = (200, 0, 180)


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    paths = []
    for number, colour in enumerate((RED, GREEN, BLUE, PURPLE, CROWD, RED)):
        suffix, kind = (("jpg", "JPEG"), ("png", "PNG"))[number % 2]
        paths.append(tmp_path / f"{number}.{suffix}")
        paths[-1].write_bytes(encode_image(solid_image(colour, (40, 60 + 20 * number)), kind))
    return paths


def sample(handler: TorchServeHandler, pictures: Sequence[Path], all_classes: bool) -> Distributions:
    """Return the distributions of what a worker keeps of these pictures."""
    seen = []
    for path in pictures:
        payload = Payload(images=(path.read_bytes(),))
        [outcome] = handler.predict([payload])
        record, _ = make_record(Taken(payload, {}, outcome, 200), ModelIdentity(), ImageLimits(), HARMLESS, False)
        seen += [see_image(image, record, all_classes) for image in record["images"]]
    return count_images(seen)


@pytest.mark.parametrize(
    ("task", "section", "parts"),
    [
        ("classification", {}, {"scores", "classes", "sizes", "formats"}),
        ("classification", {"activation": "sigmoid"}, {"scores", "classes", "sizes", "formats"}),
        (
            "classification",
            {"activation": "sigmoid", "options": {"top_k": 1, "class_thresholds": {"red": 0.99}}},
            {"scores", "classes", "sizes", "formats"},
        ),
        ("detection", {}, {"scores", "classes", "counts", "sizes", "formats"}),
        (
            "detection",
            {"options": {"score_threshold": 0.05, "class_thresholds": {"red": 0.9}}},
            {"scores", "classes", "counts", "sizes", "formats"},
        ),
        (
            "detection",
            {"options": {"score_threshold": 0.05, "max_detections": 3}},
            {"scores", "classes", "counts", "sizes", "formats"},
        ),
        ("detection", {"options": {"class_filter": ["blue"]}}, {"scores", "classes", "counts", "sizes", "formats"}),
        ("detection", {"options": {"tile_size": 32}}, {"sizes", "formats"}),
        ("embedding", {}, {"sizes", "formats"}),
    ],
)
def test_the_verification_is_distributed_as_samples_of_its_pictures(
    make_handler: MakeHandler, pictures: list[Path], task: Task, section: dict[str, Any], parts: set[str]
) -> None:
    handler = make_handler(task, **section)
    told = describe_answers(handler, pictures, observe(handler, pictures))
    expected, found = Distributions.from_json(told), sample(handler, pictures, told["all_classes"])
    assert (set(expected.parts), expected.images) == (parts, len(pictures))
    for part in parts:
        assert expected.parts[part] == pytest.approx(found.parts[part], abs=1e-3), part


@pytest.mark.parametrize(("task", "all_classes"), [("classification", False), ("detection", True)])
def test_the_best_class_alone_counts_where_a_picture_has_one(
    make_handler: MakeHandler, pictures: list[Path], task: Task, all_classes: bool
) -> None:
    handler = make_handler(task)
    assert describe_answers(handler, pictures, observe(handler, pictures))["all_classes"] == all_classes
