"""Every form of request of the HTTP contract, against a real server."""

import base64
import io
import json
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from torchvision.ops import box_iou

from .conftest import Served, Service

OCTETS = {"Content-Type": "application/octet-stream"}
GARBAGE = b"this is not an image"


def to_v1(*images: bytes, **parameters: Any) -> str:
    instances = [{"b64": base64.b64encode(image).decode()} for image in images]
    return json.dumps({"instances": instances, **({"parameters": parameters} if parameters else {})})


def best_label(answer: dict[str, Any]) -> str:
    return str(answer["classes"][0]["label"])


@pytest.mark.parametrize(
    ("method", "headers"),
    [("PUT", {}), ("POST", OCTETS), ("POST", {"Content-Type": "image/png"}), ("POST", {"Content-Type": "text/plain"})],
    ids=["PUT without a type", "POST octets", "POST image/png", "POST text/plain"],
)
def test_a_raw_body_gets_its_answer_bare(served: Served, seven: bytes, method: str, headers: dict[str, str]) -> None:
    response = served.request(method, "/predictions/digits", data=seven, headers=headers)
    assert response.status_code == 200
    assert best_label(response.json()) == "7"
    assert len(response.json()["classes"]) == 5
    assert set(response.json()["classes"][0]) == {"class_id", "label", "score"}


def test_every_answer_says_what_made_it(served: Served, seven: bytes) -> None:
    headers = served.post("digits", seven, OCTETS).headers
    assert headers["Content-Type"] == "application/json"
    assert headers["X-Model-Version"] == "1.0"
    assert headers["X-Backend"] == "openvino"
    assert headers["X-Precision"] == "fp32"
    assert headers["X-Batch-Size"] == "1"
    stages = [part.split(";")[0].strip() for part in headers["Server-Timing"].split(",")]
    expected = ["decode", "preprocess", "inference", "postprocess"]
    assert [stage for stage in stages if stage in expected] == expected


def test_multipart_answers_each_image_in_order(served: Served, seven: bytes) -> None:
    files = {
        "a": ("a.png", seven, "image/png"),
        "b": ("b.png", GARBAGE, "image/png"),
        "c": ("c.png", seven, "image/png"),
    }
    response = served.request("POST", "/predictions/digits", files=files, data={"top_k": "1"})
    assert response.status_code == 200
    first, second, third = response.json()["results"]
    assert best_label(first) == best_label(third) == "7"
    assert len(first["classes"]) == 1
    assert second["error"]["code"] == 400


@pytest.mark.parametrize("path", ["/predictions/digits", "/v1/models/digits:predict"])
def test_kserve_v1_gets_predictions(served: Served, seven: bytes, path: str) -> None:
    body = to_v1(seven, seven, top_k=2)
    response = served.request("POST", path, data=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 200
    assert [best_label(answer) for answer in response.json()["predictions"]] == ["7", "7"]
    assert [len(answer["classes"]) for answer in response.json()["predictions"]] == [2, 2]


def test_the_detector_finds_the_digits_of_a_scene(served: Served, scene: bytes, scene_truth: Any) -> None:
    answer = served.post("digits_detection", scene, OCTETS).json()
    width, height = PIL.Image.open(io.BytesIO(scene)).size
    assert answer["image"] == {"width": width, "height": height}
    found = sorted(d["label"] for d in answer["detections"])
    assert found == sorted(scene_truth["labels"])
    boxes = torch.tensor([d["box"] for d in answer["detections"]])
    truth = torch.tensor(scene_truth["boxes_xyxy"], dtype=torch.float32)
    assert box_iou(truth, boxes).max(dim=1).values.min() > 0.5


def test_detection_options_change_only_their_own_answer(served: Served, scene: bytes) -> None:
    options = {**OCTETS, "X-Inference-Options": "max_detections=1"}
    assert len(served.post("digits_detection", scene, options).json()["detections"]) == 1
    assert len(served.post("digits_detection", scene, OCTETS).json()["detections"]) > 1


def test_boxes_follow_the_exif_orientation(served: Served, scene: bytes) -> None:
    upright = PIL.Image.open(io.BytesIO(scene)).convert("RGB")
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # stored turned left; viewers turn it right
    buffer = io.BytesIO()
    upright.transpose(PIL.Image.Transpose.ROTATE_90).save(buffer, "PNG", exif=exif)
    expected = served.post("digits_detection", scene, OCTETS).json()
    answer = served.post("digits_detection", buffer.getvalue(), OCTETS).json()
    assert answer["image"] == expected["image"]
    assert [d["label"] for d in answer["detections"]] == [d["label"] for d in expected["detections"]]


BAD_REQUESTS: dict[str, tuple[bytes | str, dict[str, str], int, str]] = {
    "garbage": (GARBAGE, OCTETS, 400, "ImageDecodeError"),
    "half an image": (np.random.default_rng(0).bytes(64), OCTETS, 400, "ImageDecodeError"),
    "a form": ("a=b", {"Content-Type": "application/x-www-form-urlencoded"}, 400, "MalformedRequestError"),
    "broken JSON": ("{", {"Content-Type": "application/json"}, 400, "MalformedRequestError"),
    "JSON null": ("null", {"Content-Type": "application/json"}, 400, "MalformedRequestError"),
    "JSON without instances": ('{"inputs": []}', {"Content-Type": "application/json"}, 400, "MalformedRequestError"),
    "bad base64": ('{"instances": [{"b64": "%"}]}', {"Content-Type": "application/json"}, 400, "MalformedRequestError"),
}


@pytest.mark.parametrize(("body", "headers", "status", "kind"), BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_a_bad_request_gets_its_own_error(
    served: Served, body: bytes | str, headers: dict[str, str], status: int, kind: str
) -> None:
    response = served.post("digits", body, headers)
    assert response.status_code == status, response.text
    message = "error" if headers["Content-Type"] == "application/json" else "message"  # as its protocol has it
    assert set(response.json()) == {"code", "type", message}
    assert (response.json()["code"], response.json()["type"]) == (status, kind)
    assert len(response.content) < 2048


@pytest.mark.parametrize("authorization", ["", "Bearer wrong"], ids=["no token", "wrong token"])
def test_a_prediction_needs_the_token(service: Service, seven: bytes, authorization: str) -> None:
    response = service.post("digits", seven, {**OCTETS, "Authorization": authorization})
    assert (response.status_code, response.json()["type"]) == (400, "InvalidKeyException")
