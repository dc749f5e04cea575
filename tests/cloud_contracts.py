"""What SageMaker, Vertex AI and Azure ML ask of a container, spoken to one that runs."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import requests
import yaml

from mar_tools.front.clouds import DEFAULT_PORT
from mar_tools.waiting import wait_until

READY_S, ANSWER_S = 300.0, 60.0
SAGEMAKER_PING_S = 2.0
SAGEMAKER_STOP_S = 30.0
VERTEX_ROUTE = "/v1/endpoints/17/deployedModels/4"  # as Vertex AI has it where the upload names none
VERTEX_BYTES = 1_500_000
ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "operate" / "clouds.md"
SEVEN = ROOT / "examples" / "digits_classification" / "samples" / "seven.png"
VERTEX = {"AIP_HEALTH_ROUTE": VERTEX_ROUTE, "AIP_PREDICT_ROUTE": f"{VERTEX_ROUTE}:predict", "AIP_STORAGE_URI": ""}


def wait_until_healthy(url: str) -> bool:
    """Ask as SageMaker does: only a 200 within two seconds is health."""

    def is_healthy() -> bool:
        try:
            return requests.get(f"{url}/ping", timeout=SAGEMAKER_PING_S).status_code == 200
        except requests.RequestException:
            return False

    return wait_until(is_healthy, READY_S, 1.0)


def ask(url: str, data: bytes | str, content_type: str) -> Any:
    response = requests.post(url, data=data, headers={"Content-Type": content_type}, timeout=ANSWER_S)
    assert response.status_code == 200, response.text
    return response.json()


def speak_sagemaker(url: str) -> None:
    assert requests.get(f"{url}/ping", timeout=SAGEMAKER_PING_S).status_code == 200
    for content_type in ("image/png", "application/x-image"):
        assert ask(f"{url}/invocations", SEVEN.read_bytes(), content_type)["classes"][0]["label"] == "7"
    broken = requests.post(f"{url}/invocations", data=b"no picture", headers={"Content-Type": "image/png"}, timeout=60)
    assert (broken.status_code, broken.json()["type"]) == (400, "ImageDecodeError")


def speak_vertex_ai(url: str) -> None:
    assert requests.get(url + VERTEX["AIP_HEALTH_ROUTE"], timeout=ANSWER_S).status_code == 200
    instance = {"b64": base64.b64encode(SEVEN.read_bytes()).decode()}
    count = VERTEX_BYTES // len(json.dumps(instance))
    for instances in ([instance, {"image_bytes": instance}], [instance] * min(count, 16)):
        body = json.dumps({"instances": instances, "parameters": {"top_k": 1}})
        assert len(body) <= VERTEX_BYTES
        answer = ask(url + VERTEX["AIP_PREDICT_ROUTE"], body, "application/json")
        assert [entry["classes"][0]["label"] for entry in answer["predictions"]] == ["7"] * len(instances)
        assert {len(entry["classes"]) for entry in answer["predictions"]} == {1}


def speak_azure_ml(url: str) -> None:
    """With the routes of the deployment that the page has."""
    [deployment] = re.findall(r"(?s)```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"))
    routes = yaml.safe_load(deployment)["environment"]["inference_config"]
    assert {route["port"] for route in routes.values()} == {DEFAULT_PORT}
    for name in ("liveness_route", "readiness_route"):
        assert requests.get(url + routes[name]["path"], timeout=ANSWER_S).status_code == 200
    instance = {"b64": base64.b64encode(SEVEN.read_bytes()).decode()}
    answer = ask(url + routes["scoring_route"]["path"], json.dumps({"instances": [instance]}), "application/json")
    assert answer["predictions"][0]["classes"][0]["label"] == "7"


def find_open_routes(url: str) -> list[str]:
    """Return which of TorchServe's own routes can be asked there: none should."""
    routes = ("/models", "/metrics", "/api-description", "/torchserve/ping", "/management/models", "/token")
    return [route for route in routes if requests.get(url + route, timeout=ANSWER_S).status_code != 404]
