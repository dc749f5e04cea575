"""What gets through the front: routes, headers, queries, the Open Inference Protocol and KServe V1."""

import json
import shutil
import ssl
import subprocess
import time

import numpy as np
import pytest
from tritonclient import http as triton

from e2e.conftest import Service
from e2e.test_requests import GARBAGE, best_label, to_v1

from .conftest import JSON, PREDICT, TIMEOUT_S, Running, raw
from .faults import Upstream, exchange


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/models"),
        ("POST", "/models?url=digits.mar"),
        ("DELETE", "/models/digits"),
        ("PUT", "/models/digits"),
        ("GET", "/management/models"),
        ("GET", "/torchserve/ping"),
        ("GET", "/metrics"),
        ("GET", "/token?type=inference"),
        ("GET", "/api-description"),
        ("OPTIONS", "/"),
        ("POST", "/workflows?url=x"),
        ("POST", "/wfpredict/x"),
        ("GET", "//models"),
        ("GET", "/predictions/../models"),
        ("GET", "/predictions/%2e%2e/models"),
        ("POST", "/predictions/digits/1.0/../../../models"),
        ("GET", "/v2/models/digits%2f..%2f..%2f..%2fmodels"),
        ("POST", "/predictions/digits%0a"),
        ("POST", "/explanations/digits%0aHost:y"),
        ("POST", "/v2/models/digits/versions/1.0%0a/infer"),
        ("GET", "/v2/models/digits%0a"),
        ("POST", "/v2/repository/models/digits/unload"),
        ("POST", "/invocations?model_name=digits"),
        ("GET", "/error"),
    ],
)
def test_management_is_out_of_reach(running: Running, torchserve: Service, method: str, path: str) -> None:
    answer = exchange(running.address, raw(method, path)(running.key))
    assert int(answer.split()[1]) in (404, 405), answer
    assert torchserve.server.client.list_models() == ["digits"]


MILLISECONDS = 0.01  # both are read off clocks that nginx renews once a millisecond


def test_only_these_headers_reach_torchserve(before_upstream: Running, told: Upstream) -> None:
    told.requests.clear()
    headers = {
        "describe": "True", "explain": "True", "ts_request_sequence_id": "1", "X-Forwarded-For": "6.6.6.6",
        "Authorization": f"Bearer {before_upstream.key}", "Cookie": "a=b", "Connection": "X-Inference-Options",
        "Accept": "image/png", "X-Inference-Options": "top_k=1", "Content-Encoding": "identity",
    }  # fmt: skip
    assert before_upstream.predict(b"the body", "?top_k=2", **headers).content == b"its own say"
    path, received, body = told.requests[-1]
    assert (path, body) == ("/predictions/digits", b"the body")
    assert received.pop("x-request-id")
    arrived, started = (float(received.pop(name)[2:]) for name in ("x-request-arrived", "x-request-start"))
    assert arrived - MILLISECONDS <= started <= time.time() + MILLISECONDS
    assert received == {
        "host": "inference", "authorization": "Bearer token-of-torchserve", "content-type": "application/octet-stream",
        "content-encoding": "identity", "content-length": "8", "accept": "image/png", "x-forwarded-for": "127.0.0.1",
        "x-forwarded-proto": "https", "x-inference-options": "top_k=1; top_k=2",
    }  # fmt: skip


def test_headers_that_torchserve_acts_on_change_nothing(running: Running, seven: bytes) -> None:
    assert running.predict(seven, explain="True", describe="True").json() == running.predict(seven).json()


QUERIES = {
    "one": ("?top_k=3", "top_k=3"),
    "two": ("?score_threshold=0.4&top_k=3", "score_threshold=0.4; top_k=3"),
    "encoded": ("?class_filter=traffic+light%2Ccaf%C3%A9%20%25", "class_filter=traffic light,café %"),
    "ampersand in a value": ("?class_filter=a%26top_k%3D1", "class_filter=a&top_k=1"),
    "empty parts": ("?&&top_k=3&", "top_k=3"),
    "nothing": ("?", None),
}


@pytest.mark.parametrize(("query", "expected"), QUERIES.values(), ids=QUERIES)
def test_the_query_becomes_options(before_upstream: Running, told: Upstream, query: str, expected: str | None) -> None:
    assert before_upstream.predict(b"x", query).status_code == 200
    received = told.requests[-1][1].get("x-inference-options")
    assert (received and received.encode("latin-1").decode()) == expected


@pytest.mark.parametrize(
    "query",
    ["?top_k=3%3Bx=1", "?a=%0d%0aExplain:%20True", "?a=%00", "?a%0a=1", "?a=%zz", "?a=%ff", "?a%3Bb=1", "?=1"],
)
def test_a_query_that_would_be_more_than_options_is_refused(
    before_upstream: Running, told: Upstream, query: str
) -> None:
    told.requests.clear()
    request = raw("POST", PREDICT + query, "Content-Length: 0")(before_upstream.key)
    answer = exchange(before_upstream.address, request)
    assert (int(answer.split()[1]), b'"type":"QueryError"' in answer) == (400, True)
    assert told.requests == []


def test_options_of_the_query_count_and_unknown_ones_are_refused(running: Running, seven: bytes) -> None:
    assert len(running.predict(seven, "?top_k=3").json()["classes"]) == 3
    both = running.predict(seven, "?top_k=3", **{"X-Inference-Options": "top_k=2"})
    assert len(both.json()["classes"]) == 3
    unknown = running.predict(seven, "?topk=3")
    assert (unknown.status_code, "unknown option 'topk'" in unknown.json()["message"]) == (422, True)


def test_errors_of_a_model_are_its_own(running: Running) -> None:
    response = running.predict(GARBAGE)
    assert (response.status_code, response.json()["type"]) == (400, "ImageDecodeError")


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_curl_over_http2_with_a_body_of_unknown_length(running: Running, seven: bytes) -> None:
    command = ["curl", "-sS", "--http2", "--cacert", str(running.front.certificate), "-w", "%{http_version}"]
    command += ["-H", f"Authorization: Bearer {running.key}", "-T", "-", f"{running.front.url}/predictions/digits"]
    finished = subprocess.run(command, input=seven, capture_output=True, timeout=TIMEOUT_S)
    answer, version = json.loads(finished.stdout[:-1]), finished.stdout[-1:]
    assert (best_label(answer), version) == ("7", b"2")


# Open Inference and KServe V1


def test_tritonclient_asks_and_predicts_through_the_front(running: Running, seven: bytes) -> None:
    headers = {"Authorization": f"Bearer {running.key}"}
    with triton.InferenceServerClient(
        running.front.url.removeprefix("https://"), ssl=True,
        ssl_context_factory=lambda: ssl.create_default_context(cafile=running.front.certificate),
    ) as client:  # fmt: skip
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("digits", headers=headers)
        assert client.is_model_ready("digits", "1.0", headers=headers)
        assert not client.is_model_ready("nothing", headers=headers)
        assert client.get_server_metadata(headers=headers)["extensions"] == ["binary_tensor_data"]
        metadata = client.get_model_metadata("digits", headers=headers)
        tensor = triton.InferInput(metadata["inputs"][0]["name"], [1], metadata["inputs"][0]["datatype"])
        tensor.set_data_from_numpy(np.array([seven], dtype=np.object_))
        for version in ("", "1.0"):
            answer = client.infer("digits", [tensor], version, headers=headers, parameters={"top_k": 2})
            assert answer.as_numpy("class_ids").tolist() == [[7, 9]]
            given = [(output["name"], output["datatype"]) for output in answer.get_response()["outputs"]]
            assert given == [(output["name"], output["datatype"]) for output in metadata["outputs"]]
        assert (metadata["name"], metadata["versions"]) == ("digits", ["1.0"])
        with pytest.raises(triton.InferenceServerException, match="top_k"):
            client.infer("digits", [tensor], headers=headers, parameters={"top_k": "many"})


def test_kserve_v1_asks_and_predicts_through_the_front(running: Running, seven: bytes) -> None:
    assert running.request("GET", "/v1/models").json() == {"models": ["digits"]}
    assert running.request("GET", "/v1/models/digits").json() == {"name": "digits", "ready": True}
    assert running.request("GET", "/v1/models/nothing").status_code == 404
    answer = running.request("POST", "/v1/models/digits:predict", JSON, data=to_v1(seven))
    assert best_label(answer.json()["predictions"][0]) == "7"


def test_probes_need_no_key_and_say_nothing_else(running: Running) -> None:
    paths = ("/ping", "/v2/health/live", "/v2/health/ready")
    answers = [running.request("GET", path, {"X-Api-Key": ""}) for path in paths]
    assert [answer.json() for answer in answers] == [{"status": "Healthy"}, {"live": True}, {"ready": True}]
    assert running.request("GET", "/v1/models", {"X-Api-Key": ""}).status_code == 401
