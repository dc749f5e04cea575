"""Explanations and model cards of a real server, beside predictions of the same batches."""

import io
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import PIL.Image
import pytest
import requests
from conftest import RunHere

from mar_tools.serving.torchserve_api import ServerError

from .conftest import BATCH_DELAY_MS, BOTH, EAGER_DIGITS, Served, Service
from .test_requests import GARBAGE, OCTETS, best_label, to_v1

MODEL = EAGER_DIGITS


@pytest.fixture(scope="module")
def explaining(service: Service, eager_digits: Path) -> Iterator[Service]:
    """TorchServe with the digits classifier in eager fp32 beside the others."""
    shutil.copy(eager_digits, service.model_store)
    service.server.client.register(eager_digits.name, workers=1, batch_size=8, max_batch_delay_ms=BATCH_DELAY_MS)
    yield service
    service.server.client.unregister(MODEL, None)


@pytest.fixture(scope="module", params=BOTH)
def explained(request: pytest.FixtureRequest) -> Any:
    """Either server with that model."""
    return request.getfixturevalue({"torchserve": "explaining", "ray": "on_ray"}[request.param])


def explain(served: Served, body: Any, options: str = "", model: str = MODEL, **headers: str) -> requests.Response:
    given = {**OCTETS, "X-Inference-Options": options, **headers}
    response: requests.Response = served.request("POST", f"/explanations/{model}", data=body, headers=given)
    return response


@pytest.mark.parametrize("method", ["occlusion", "integrated_gradients", "saliency"])
def test_a_classifier_explains_its_answer(explained: Served, seven: bytes, method: str) -> None:
    response = explain(explained, seven, f"method={method}")
    assert response.status_code == 200, response.text
    answer = response.json()
    predicted = explained.post(MODEL, seven, OCTETS).json()["classes"][0]
    assert {name: answer[name] for name in predicted} == pytest.approx(predicted, abs=1e-5)
    assert answer["method"] == method
    assert np.array(answer["heat_map"]["values"]).shape == (answer["heat_map"]["height"], answer["heat_map"]["width"])


def test_a_backend_without_gradients_explains_by_occlusion(served: Served, seven: bytes) -> None:
    response = explain(served, seven, model="digits")
    assert (response.json()["label"], response.json()["method"]) == ("7", "occlusion")
    refused = explain(served, seven, "method=saliency", model="digits")
    assert (refused.status_code, refused.json()["type"]) == (501, "NotSupportedError")


def test_a_detector_gives_no_explanations(served: Served, scene: bytes) -> None:
    response = explain(served, scene, model="digits_detection")
    assert (response.status_code, response.json()["type"]) == (501, "NotSupportedError")


def test_accept_asks_for_a_picture(explained: Served, seven: bytes) -> None:
    response = explain(explained, seven, Accept="image/png")
    assert (response.status_code, response.headers["Content-Type"]) == (200, "image/png")
    drawn, source = (PIL.Image.open(io.BytesIO(data)) for data in (response.content, seven))
    assert drawn.width / source.width == pytest.approx(320 / min(source.size), rel=0.01)  # as all are drawn
    assert drawn.height > source.height * drawn.width / source.width  # by a legend


def test_kserve_v1_explains_too(explained: Served, seven: bytes) -> None:
    response = explained.request(
        "POST", f"/explanations/{MODEL}", data=to_v1(seven, GARBAGE, target_class="1"),
        headers={"Content-Type": "application/json"},
    )  # fmt: skip
    explanation, failure = response.json()["predictions"]
    assert (response.status_code, explanation["label"], failure["error"]["code"]) == (200, "1", 400)


def test_a_mixed_batch_gives_each_its_own(explained: Served, seven: bytes) -> None:
    token = explained.token
    asked = [
        ("/explanations/", seven, {}),
        ("/predictions/", seven, {}),
        ("/explanations/", GARBAGE, {}),
        ("/predictions/", GARBAGE, {}),
        ("/predictions/", seven, {"describe": "True"}),
        ("/explanations/", seven, {"describe": "True", "X-Inference-Options": "target_class=1"}),
        ("/predictions/", seven, {"X-Inference-Options": "cells=4"}),
    ]
    expected = [(200, "7 explained"), (200, "7"), (400, ""), (400, ""), (200, "7"), (200, "1 explained"), (422, "")]

    def post(request: tuple[str, bytes, dict[str, str]]) -> tuple[int, str, int]:
        path, body, headers = request
        headers = {**OCTETS, **headers, "Authorization": f"Bearer {token}"}
        response = explained.request("POST", path + MODEL, data=body, headers=headers)
        return response.status_code, summary(response.json()), int(response.headers["X-Batch-Size"])

    for _ in range(5):  # the first worker call of a burst may take a single request; one shared batch is the proof
        with ThreadPoolExecutor(len(asked)) as pool:
            answers = list(pool.map(post, asked))
        assert [answer[:2] for answer in answers] == expected
        if all(size == len(asked) for *_, size in answers):
            return
    raise AssertionError("no burst shared one batch")


def summary(answer: dict[str, Any]) -> str:
    if "code" in answer:
        return ""
    return f"{answer['label']} explained" if "heat_map" in answer else best_label(answer)


@pytest.mark.parametrize("version", [None, "1.0"])
def test_the_management_api_gives_the_model_card(explaining: Service, version: str | None) -> None:
    card = explaining.server.client.describe_card(MODEL, version)
    assert (card["name"], card["version"], card["task"]) == (MODEL, "1.0", "classification")
    assert (card["backend"], card["precision"], card["device"]) == ("eager", "fp32", "cpu")
    assert card["labels"] == [str(digit) for digit in range(10)]
    assert card["verification"]["accuracy"]["candidate"]["top1"] > 0.9
    assert "model/model.safetensors" in card["files"]


def test_a_card_needs_the_management_token(explaining: Service) -> None:
    ports = explaining.server.ports()
    url = f"http://127.0.0.1:{ports['management_address']}/models/{MODEL}?customized=true"
    response = requests.get(url, headers={"Authorization": f"Bearer {explaining.token}"}, timeout=30)
    assert response.status_code == 400
    assert "customizedMetadata" not in response.text


@pytest.mark.parametrize(
    ("method", "headers"),
    [("GET", {}), ("POST", OCTETS), ("POST", {"Content-Type": "multipart/form-data; boundary=x"}),
     ("POST", {"Content-Type": "application/x-www-form-urlencoded"})],
    ids=["GET", "no bytes", "empty multipart", "an empty form"],
)  # fmt: skip
def test_no_client_gets_the_card_by_a_header(explained: Served, method: str, headers: dict[str, str]) -> None:
    response = explained.request(method, f"/predictions/{MODEL}", headers={**headers, "describe": "True"})
    assert response.status_code == 400
    assert set(response.json()) == {"code", "type", "message"}


def test_cards_asked_for_among_predictions_hurt_none_of_them(explaining: Service, seven: bytes) -> None:
    token = explaining.token

    def ask(number: int) -> str:
        if number % 4 == 0:
            return str(explaining.server.client.describe_card(MODEL)["name"])
        headers = {**OCTETS, "Authorization": f"Bearer {token}"}
        return best_label(explaining.post(MODEL, seven, headers).json())

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(ask, range(32)))
    assert found == [MODEL if number % 4 == 0 else "7" for number in range(32)]


def test_the_card_of_a_server_is_that_of_its_archive_and_its_device(run_here: RunHere, explaining: Service) -> None:
    config = ("--config", explaining.server.config)
    served = run_here("manage_models.py", *config, "describe", MODEL, "--card", "--json")
    packed = run_here("inspect_archive.py", explaining.model_store / f"{MODEL}.mar", "--json")
    assert (served.returncode, packed.returncode) == (0, 0), served.stderr + packed.stderr
    card, of_archive = orjson.loads(served.stdout), orjson.loads(packed.stdout)
    assert {name: card[name] for name in of_archive} == of_archive
    assert card.keys() - of_archive.keys() == {"device", "explanations"}


def test_a_card_is_a_table_for_people(run_here: RunHere, explaining: Service) -> None:
    shown = run_here("manage_models.py", "--config", explaining.server.config, "describe", MODEL, "--card")
    assert shown.returncode == 0, shown.stderr
    words = ("eager fp32", "cpu", "top_k = 5", "saliency", "max_pixels", "SHA-256")
    assert [word for word in words if word not in shown.stdout] == []


def test_the_card_of_an_unknown_model_is_refused(service: Service) -> None:
    with pytest.raises(ServerError, match="no_such_model"):
        service.server.client.describe_card("no_such_model")
