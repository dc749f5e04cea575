"""The NumPy that folders carry answers as the server does, and so does the JavaScript."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mar_tools.edge.carried.postprocess import postprocess, read_detections
from mar_tools.edge.carried.preprocess import Geometry
from mar_tools.edge.documents import check_can_leave, describe_options
from mar_tools.edge.export import CARRIED, read_default_options
from mar_tools.models.handlers_by_task import new_handler
from vision_serving.config import HandlerConfig
from vision_serving.errors import ConfigError
from vision_serving.geometry import ImageGeometry
from vision_serving.options import Options
from vision_serving.pictures.resizing import ImageBatch

LABELS = ["cat", "dog", "bird", "cow"]
SOURCE_HW, SCALE_HW, OFFSET_HW = (90, 160), (0.4, 0.4), (14, 0)


@dataclass(frozen=True)
class Silent:
    """A backend of handlers that only answer."""

    def infer(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        raise AssertionError("nothing is inferred here")


def configure(task: str, **changes: Any) -> tuple[HandlerConfig, Options]:
    """Return a handler's configuration and its default options."""
    config = HandlerConfig.model_validate(
        {
            "task": task, "backend": "eager", "artifact": "model", "candidates_per_class": 1000,
            "preprocessing": {"resize": {"mode": "letterbox", "size": [64, 64]}}, **changes,
        }
    )  # fmt: skip
    return config, read_default_options(config, LABELS)


def answer_both(task: str, outputs: dict[str, torch.Tensor], **changes: Any) -> tuple[Any, Any]:
    """Return the answers of the server's handler and of a folder's program."""
    config, options = configure(task, **changes)
    handler = new_handler(config.task)
    handler.assemble(config, LABELS, Silent())
    batch = ImageBatch(torch.zeros((1, 64, 64, 3), dtype=torch.uint8), (ImageGeometry(SOURCE_HW, SCALE_HW, OFFSET_HW),))
    (expected,) = handler.postprocess(outputs, batch, [options])
    found = postprocess(
        {name: values.numpy() for name, values in outputs.items()},
        Geometry(SOURCE_HW, SCALE_HW, OFFSET_HW),
        LABELS,
        describe_options(config, options, LABELS),
    )
    return expected, found


def draw_boxes(count: int, seed: int) -> torch.Tensor:
    """Return (1, count, 4) boxes of which many overlap, some have no area and some lie outside."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand((1, count, 2), generator=generator) * 60 - 5
    return torch.cat((corners, corners + torch.rand((1, count, 2), generator=generator) * 25 - 1), dim=2)


OPTIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "a threshold each": {"class_thresholds": {"dog": 0.1, "cow": 0.9}, "score_threshold": 0.3},
    "some classes": {"class_filter": ["cat", "bird"], "score_threshold": 0.2},
    "over all classes": {"nms": "class_agnostic", "iou_threshold": 0.3, "score_threshold": 0.1},
    "no NMS": {"nms": "none", "max_detections": 7},
    "few": {"max_detections": 3, "iou_threshold": 0.7, "score_threshold": 0.0},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("form", ["dense", "padded", "few candidates"])
def test_boxes_are_those_of_the_server(form: str, options: dict[str, Any]) -> None:
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        outputs = {"boxes": draw_boxes(80, seed), "scores": torch.rand((1, 80, 4), generator=generator)}
        if form == "padded":
            outputs["class_ids"] = torch.randint(0, 4, (1, 80), generator=generator)
            outputs["scores"] = outputs["scores"][..., 0]
        changes = {"candidates_per_class": 6} if form == "few candidates" else {}
        expected, found = answer_both("detection", outputs, options=options, **changes)
        assert [(each["class_id"], each["label"]) for each in found["detections"]] == [
            (each.class_id, each.label) for each in expected.detections
        ]
        for one, other in zip(found["detections"], expected.detections, strict=True):
            assert one["score"] == pytest.approx(other.score, abs=1e-6)
            assert one["box"] == pytest.approx(other.box, abs=0.011)


def test_a_picture_without_boxes_has_an_empty_answer() -> None:
    outputs = {"boxes": draw_boxes(5, 0), "scores": torch.zeros((1, 5, 4))}
    assert answer_both("detection", outputs)[1] == {"detections": []}


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_classes_are_those_of_the_server(activation: str) -> None:
    for seed in range(5):
        logits = torch.randn((1, 4), generator=torch.Generator().manual_seed(seed)) * 3
        options = {"top_k": 3, **({"class_thresholds": {"dog": 0.2}} if activation == "sigmoid" else {})}
        expected, found = answer_both("classification", {"logits": logits}, activation=activation, options=options)
        assert [(each["class_id"], each["label"]) for each in found["classes"]] == [
            (each.class_id, each.label) for each in expected.classes
        ]
        assert [each["score"] for each in found["classes"]] == pytest.approx(
            [each.score for each in expected.classes], abs=2e-6
        )


def test_a_vector_has_a_length_of_1() -> None:
    answer = postprocess({"embedding": np.array([[3, 4]], np.float32)}, Geometry((1, 1), (1, 1), (0, 0)), [], {})
    assert answer["embedding"] == pytest.approx([0.6, 0.8])


SCRIPT = """
import { readFileSync } from "node:fs";
import { postprocess } from "./vision.mjs";
for (const { outputs, geometry, labels, options } of JSON.parse(readFileSync(0))) {
    for (const each of Object.values(outputs)) each.data = new Float32Array(each.data);
    console.log(JSON.stringify(postprocess(outputs, geometry, labels, options)));
}
"""


@pytest.mark.lab
@pytest.mark.skipif(shutil.which("node") is None, reason="node is missing")
def test_javascript_answers_as_the_server_does(tmp_path: Path) -> None:
    shutil.copyfile(CARRIED / "vision.mjs", tmp_path / "vision.mjs")
    (tmp_path / "run.mjs").write_text(SCRIPT)
    cases, expected = [], []
    for options in OPTIONS.values():
        outputs = {"boxes": draw_boxes(80, 1), "scores": torch.rand((1, 80, 4))}
        config, chosen = configure("detection", options=options, candidates_per_class=20)
        told = describe_options(config, chosen, LABELS)
        arrays = {name: values.numpy() for name, values in outputs.items()}
        expected.append(postprocess(arrays, Geometry(SOURCE_HW, SCALE_HW, OFFSET_HW), LABELS, told)["detections"])
        given = {name: {"data": array.flatten().tolist(), "dims": array.shape} for name, array in arrays.items()}
        placed = {"source": SOURCE_HW, "scale": SCALE_HW, "offset": OFFSET_HW}
        cases.append({"outputs": given, "geometry": placed, "labels": LABELS, "options": told})
    command = ["node", str(tmp_path / "run.mjs")]
    done = subprocess.run(command, input=json.dumps(cases), capture_output=True, text=True, check=True)
    for line, boxes in zip(done.stdout.splitlines(), expected, strict=True):
        found = json.loads(line)["detections"]
        assert [each["class_id"] for each in found] == [each["class_id"] for each in boxes]
        for one, other in zip(found, boxes, strict=True):
            assert one["score"] == pytest.approx(other["score"], abs=1e-6)
            assert one["box"] == pytest.approx(other["box"], abs=0.011)


PROGRAM = """
#include <iostream>
#include "detections.hpp"
int main() {
    std::size_t count, classes, most;
    float iou_threshold;
    bool class_wise;
    while (std::cin >> count >> classes >> most >> iou_threshold >> class_wise) {
        std::vector<float> thresholds(classes), boxes(count * 4), scores(count * classes);
        for (auto* values : {&thresholds, &boxes, &scores}) for (float& value : *values) std::cin >> value;
        for (const auto& each : read_detections(boxes.data(), scores.data(), count, thresholds, iou_threshold, most,
                                                nullptr, class_wise))
            std::cout << each.class_id << " " << each.score << " ";
        std::cout << std::endl;
    }
}
"""


@pytest.mark.lab
@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is missing")
def test_cpp_keeps_the_boxes_of_the_server(tmp_path: Path) -> None:
    shutil.copyfile(CARRIED / "detections" / "detections.hpp", tmp_path / "detections.hpp")
    (tmp_path / "run.cpp").write_text(PROGRAM)
    subprocess.run(["g++", "-std=c++17", "-Wall", "-Werror", "-o", "run", "run.cpp"], cwd=tmp_path, check=True)
    cases, expected = [], []
    for name in ("defaults", "a threshold each", "over all classes", "few"):
        boxes, scores = draw_boxes(80, 1).numpy(), torch.rand((1, 80, 4)).numpy()
        config, chosen = configure("detection", options=OPTIONS[name])
        told = describe_options(config, chosen, LABELS)
        expected.append(read_detections({"boxes": boxes, "scores": scores}, told))
        given = [80, 4, told["max_detections"], told["iou_threshold"], int(told["nms"] == "class_wise")]
        cases.append(" ".join(map(str, [*given, *told["thresholds"], *boxes.flatten(), *scores.flatten()])))
    done = subprocess.run([tmp_path / "run"], input="\n".join(cases), capture_output=True, text=True, check=True)
    for line, (_, class_ids, scores) in zip(done.stdout.splitlines(), expected, strict=True):
        found = line.split()
        assert len(class_ids)
        assert [int(class_id) for class_id in found[::2]] == class_ids.tolist()
        assert [float(score) for score in found[1::2]] == pytest.approx(scores.tolist(), abs=1e-5)


REFUSED = {
    "soft": {"options": {"nms": "soft"}},
    "tile_size": {"options": {"tile_size": 320}},
    "box_format": {"options": {"box_format": "xywh"}},
    "masks": {"instances": "masks"},
}


@pytest.mark.parametrize(("word", "changes"), REFUSED.items(), ids=REFUSED)
def test_what_a_folder_cannot_answer_is_refused_by_name(word: str, changes: dict[str, Any]) -> None:
    config, options = configure("detection", **changes)
    with pytest.raises(ConfigError, match=word):
        check_can_leave(config, options)
