"""What the platforms ask of a container, from the server that docs/use/protocols.md configures for them."""

import base64
import json
from typing import Any

import pytest
import requests

from .conftest import Served, Service
from .test_protocols import to_v2
from .test_requests import GARBAGE, best_label, to_v1

TIMEOUT_S = 30.0


def post(served_alone: Served, path: str, data: bytes | str, content_type: str) -> requests.Response:
    """As a platform's own proxy does: without a token, and without headers of the caller's."""
    return requests.post(served_alone.url + path, data=data, headers={"Content-Type": content_type}, timeout=TIMEOUT_S)


def instances(image: bytes, *forms: str) -> list[dict[str, Any]]:
    text = {"b64": base64.b64encode(image).decode()}
    known: dict[str, dict[str, Any]] = {
        "bare": text,
        "named": {"image_bytes": text},
        "keyed": {"image_bytes": text, "key": "1"},
    }
    return [known[form] for form in forms]


@pytest.mark.parametrize("path", ["/ping", "/v2/health/live", "/v2/health/ready", "/v2"])
def test_health_needs_no_token(served_alone: Served, path: str) -> None:
    assert requests.get(served_alone.url + path, timeout=TIMEOUT_S).status_code == 200


# Amazon SageMaker: POST /invocations


@pytest.mark.parametrize("content_type", ["image/png", "image/jpeg", "application/x-image", "application/octet-stream"])
def test_sagemaker_sends_an_image(served_alone: Served, seven: bytes, content_type: str) -> None:
    response = post(served_alone, "/invocations", seven, content_type)
    assert response.status_code == 200
    assert best_label(response.json()) == "7"


def test_sagemaker_sends_json_of_either_protocol(served_alone: Served, seven: bytes) -> None:
    first = post(served_alone, "/invocations", to_v1(seven, top_k=1), "application/json").json()
    assert [len(entry["classes"]) for entry in first["predictions"]] == [1]
    second = post(served_alone, "/invocations", json.dumps(to_v2(seven)), "application/json").json()
    assert second["model_name"] == "digits"


def test_sagemaker_gets_the_status_of_an_error(served_alone: Served) -> None:
    response = post(served_alone, "/invocations", GARBAGE, "image/jpeg")
    assert (response.status_code, response.json()["type"]) == (400, "ImageDecodeError")


def test_invocations_of_a_server_with_two_models_must_name_one(served: Served, seven: bytes) -> None:
    response = served.request("POST", "/invocations", data=seven, headers={"Content-Type": "image/png"})
    assert (response.status_code, response.json()["message"]) == (400, "Parameter model_name is required.")
    named = served.request(
        "POST", "/invocations?model_name=digits&top_k=1", data=seven, headers={"Content-Type": "image/png"}
    )
    assert [entry["label"] for entry in named.json()["classes"]] == ["7"]


# Google Vertex AI: its own JSON, on the route that the model was uploaded with


def test_vertex_ai_sends_instances_and_parameters(served_alone: Served, seven: bytes) -> None:
    document = {"instances": instances(seven, "bare", "named", "keyed"), "parameters": {"top_k": 1}}
    response = post(served_alone, "/predictions/digits", json.dumps(document), "application/json; charset=utf-8")
    assert response.status_code == 200
    assert [entry["classes"][0]["label"] for entry in response.json()["predictions"]] == ["7", "7", "7"]


def test_vertex_ai_gets_the_error_of_a_failed_instance_in_its_place(served_alone: Served, seven: bytes) -> None:
    document = {"instances": [*instances(GARBAGE, "bare"), *instances(seven, "bare")]}
    first, second = post(served_alone, "/predictions/digits", json.dumps(document), "application/json").json()[
        "predictions"
    ]
    assert (first["error"]["code"], best_label(second)) == (400, "7")


# Azure Machine Learning: routes of the deployment


@pytest.mark.parametrize(("path", "status"), [("/score", 404), ("/", 405)])
def test_azures_default_routes_are_not_torchserves(cloud: Service, path: str, status: int) -> None:
    assert requests.get(cloud.url + path, timeout=TIMEOUT_S).status_code == status
