"""Clients of other protocols as their users use them, against a real server."""

import base64
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import PIL.Image
import pytest
import requests
import ts
from tritonclient import http as triton
from tritonclient.utils import InferenceServerException

from .conftest import EXAMPLES, Served, Service
from .test_requests import GARBAGE, OCTETS, best_label, to_v1

SEVEN = EXAMPLES / "digits_classification" / "samples" / "seven.png"
JSON = {"Content-Type": "application/json"}
PROTOS = ("inference.proto", "open_inference_grpc.proto", "google/rpc/status.proto")
TIMEOUT_S = 30.0


def to_v2(*images: bytes, **keys: Any) -> dict[str, Any]:
    """Encoded images as kserve's documentation and MLServer's Base64Codec write them."""
    data = [base64.b64encode(image).decode() for image in images]
    tensor = {"name": "image", "datatype": "BYTES", "shape": [len(images), 1], "data": data}
    return {"inputs": [{**tensor, "parameters": {"content_type": "base64"}}], **keys}


def outputs_of(answer: dict[str, Any]) -> dict[str, Any]:
    return {output["name"]: output["data"] for output in answer["outputs"]}


def decode_pixels(image: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.asarray(PIL.Image.open(io.BytesIO(image)).convert("RGB"))


# Open Inference Protocol over HTTP, as KServe's documentation has it


@pytest.mark.parametrize("path", ["/v2/models/digits/infer", "/v2/models/digits:1.0/infer", "/predictions/digits"])
def test_open_inference_gets_entries_and_tensors(served: Served, seven: bytes, path: str) -> None:
    document = to_v2(seven, GARBAGE, id="42", parameters={"top_k": 2})
    response = served.request("POST", path, json=document)
    assert response.status_code == 200
    answer = response.json()
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("42", "digits", "1.0")
    outputs = outputs_of(answer)
    first, second = map(json.loads, outputs["predictions"])
    assert best_label(first) == "7"
    assert second["error"]["type"] == "ImageDecodeError"
    assert outputs["class_ids"] == [*(entry["class_id"] for entry in first["classes"]), -1, -1]
    assert outputs["scores"] == [*(entry["score"] for entry in first["classes"]), 0, 0]
    assert outputs["labels"] == [*(entry["label"] for entry in first["classes"]), "", ""]


def test_open_inference_gives_the_error_of_the_protocol(served: Served) -> None:
    response = served.request("POST", "/v2/models/digits/infer", json=to_v2(GARBAGE))
    assert (response.status_code, response.json()["code"], response.json()["type"]) == (400, 400, "ImageDecodeError")
    assert "not an image" in response.json()["error"]


def test_pixels_are_answered_as_the_file_they_came_from(served: Served, seven: bytes) -> None:
    pixels = decode_pixels(seven)
    tensor = {"name": "image", "datatype": "UINT8", "shape": pixels.shape, "data": pixels.tolist()}
    response = served.request("POST", "/v2/models/digits/infer", json={"inputs": [tensor]})
    assert json.loads(outputs_of(response.json())["predictions"][0]) == served.post("digits", seven, OCTETS).json()


KSERVE_PYTHON = os.environ.get("KSERVE_PYTHON", "")


@pytest.mark.skipif(
    not KSERVE_PYTHON,
    reason="kserve wants protobuf<7 and psutil<6, so it cannot stand beside this project: name the Python of an "
    "environment that has it in KSERVE_PYTHON",
)
def test_the_client_of_kserve(served: Served) -> None:
    script = Path(__file__).with_name("kserve_client.py")
    command = [KSERVE_PYTHON, str(script), served.url, served.token, str(SEVEN)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    finished = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert finished.returncode == 0, finished.stderr
    answers = json.loads(finished.stdout.splitlines()[-1])
    assert best_label(answers["v1"]["predictions"][0]) == "7"
    for name in ("json", "binary"):
        assert (answers[name]["id"], answers[name]["class_ids"][0][0]) == (name, 7)
    assert "not valid base64" in answers["error"]


ABSENT = {
    "V2 server": "/v2",
    "V2 liveness": "/v2/health/live",
    "V2 readiness": "/v2/health/ready",
    "V2 model": "/v2/models/digits",
    "V2 model readiness": "/v2/models/digits/ready",
    "V1 models": "/v1/models",
    "V1 model readiness": "/v1/models/digits",
}


@pytest.mark.parametrize("path", ABSENT.values(), ids=ABSENT)
def test_torchserve_lacks_the_routes_that_the_documentation_leaves_to_a_proxy(service: Service, path: str) -> None:
    assert service.request("GET", path).status_code == 404


def test_torchserve_lacks_the_route_of_a_version(service: Service, seven: bytes) -> None:
    assert service.request("POST", "/v2/models/digits/versions/1.0/infer", json=to_v2(seven)).status_code == 404


# tritonclient


@dataclass(frozen=True)
class TritonUser:
    """tritonclient[http] with a token."""

    service: Served
    token: str

    def infer(self, model: str, *tensors: Any, **arguments: Any) -> Any:
        with triton.InferenceServerClient(self.service.url.removeprefix("http://")) as client:
            headers = {"Authorization": f"Bearer {self.token}"}
            return client.infer(model, list(tensors), headers=headers, **arguments)


@pytest.fixture
def triton_user(served: Served) -> TritonUser:
    return TritonUser(served, served.token)


def encoded_tensor(*images: bytes, binary: bool = True) -> Any:
    elements = images if binary else [base64.b64encode(image) for image in images]
    tensor = triton.InferInput("image", [len(images)], "BYTES")
    tensor.set_data_from_numpy(np.array(elements, dtype=np.object_), binary_data=binary)
    return tensor


def pixel_tensor(pixels: np.ndarray[Any, np.dtype[np.uint8]], binary: bool = True) -> Any:
    tensor = triton.InferInput("image", list(pixels.shape), "UINT8")
    tensor.set_data_from_numpy(pixels, binary_data=binary)
    return tensor


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "JSON"])
def test_tritonclient_sends_files_and_reads_tensors(triton_user: TritonUser, seven: bytes, binary: bool) -> None:
    tensor = encoded_tensor(seven, GARBAGE, seven, binary=binary)
    answer = triton_user.infer("digits", tensor, request_id="42", parameters={"top_k": 2})
    assert answer.get_response()["id"] == "42"
    assert answer.as_numpy("class_ids").tolist()[::2] == [[7, 9], [7, 9]]
    assert answer.as_numpy("scores").dtype == np.float32
    assert answer.as_numpy("labels")[:, 0].tolist() == [b"7", b"", b"7"]
    first, second, third = map(json.loads, answer.as_numpy("predictions"))
    assert first == third
    assert second["error"]["code"] == 400


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "JSON"])
def test_tritonclient_sends_pixels(triton_user: TritonUser, seven: bytes, binary: bool) -> None:
    pixels = np.stack([decode_pixels(seven)] * 2)
    outputs = [
        triton.InferRequestedOutput("class_ids", binary_data=binary),
        triton.InferRequestedOutput("predictions", binary_data=not binary),
    ]
    answer = triton_user.infer("digits", pixel_tensor(pixels, binary), outputs=outputs)
    assert answer.as_numpy("class_ids")[:, 0].tolist() == [7, 7]
    assert best_label(json.loads(answer.as_numpy("predictions")[0])) == "7"
    assert answer.as_numpy("scores") is None


def test_every_input_of_a_request_counts(triton_user: TritonUser, seven: bytes) -> None:
    answer = triton_user.infer("digits", encoded_tensor(seven), pixel_tensor(decode_pixels(seven)))
    assert answer.as_numpy("class_ids")[:, 0].tolist() == [7, 7]


def test_tritonclient_reads_boxes_as_the_raw_answer_has_them(
    served: Served, triton_user: TritonUser, scene: bytes
) -> None:
    expected = served.post("digits_detection", scene, OCTETS).json()["detections"]
    answer = triton_user.infer("digits_detection", encoded_tensor(scene))
    assert answer.as_numpy("num_detections").tolist() == [len(expected)]
    assert answer.as_numpy("boxes").shape == (1, len(expected), 4)
    np.testing.assert_allclose(answer.as_numpy("boxes")[0], [entry["box"] for entry in expected], rtol=1e-6)
    assert answer.as_numpy("labels")[0].tolist() == [entry["label"].encode() for entry in expected]


REFUSED: dict[str, tuple[Callable[[bytes], Any], dict[str, Any], str, str]] = {
    "garbage": (lambda _: encoded_tensor(GARBAGE), {}, "400", "not an image"),
    "an option": (encoded_tensor, {"parameters": {"topk": 1}}, "422", "unknown option 'topk'"),
    "an output": (encoded_tensor, {"outputs": [triton.InferRequestedOutput("logits")]}, "400", "unknown output"),
    "gray pixels": (lambda _: pixel_tensor(np.zeros((4, 4), np.uint8)), {}, "400", "shape \\[4, 4\\]"),
    "compression": (encoded_tensor, {"request_compression_algorithm": "gzip"}, "415", "Content-Encoding: gzip"),
}


@pytest.mark.parametrize(("make", "arguments", "status", "message"), REFUSED.values(), ids=REFUSED)
def test_tritonclient_raises_what_was_wrong(
    triton_user: TritonUser,
    seven: bytes,
    make: Callable[[bytes], Any],
    arguments: dict[str, Any],
    status: str,
    message: str,
) -> None:
    with pytest.raises(InferenceServerException, match=message) as raised:
        triton_user.infer("digits", make(seven), **arguments)
    assert raised.value.status() == status


# gRPC, with stubs of the definitions that TorchServe's own jar holds


@dataclass(frozen=True)
class GrpcUser:
    """Both gRPC services of a server, with a token."""

    channel: grpc.Channel
    metadata: tuple[tuple[str, str], ...]

    def predict(self, **entries: bytes) -> dict[str, Any]:
        messages, services = grpc.protos_and_services("inference.proto")
        request = messages.PredictionsRequest(model_name="digits", input=entries)
        stub = services.InferenceAPIsServiceStub(self.channel)
        answer: dict[str, Any] = json.loads(
            stub.Predictions(request, timeout=TIMEOUT_S, metadata=self.metadata).prediction
        )
        return answer

    def infer(self, datatype: str, shape: list[int], raw: tuple[bytes, ...] = (), **contents: Any) -> Any:
        messages, services = grpc.protos_and_services("open_inference_grpc.proto")
        tensor = messages.ModelInferRequest.InferInputTensor(name="image", datatype=datatype, shape=shape)
        if contents:
            tensor.contents.MergeFrom(messages.InferTensorContents(**contents))
        request = messages.ModelInferRequest(model_name="digits", inputs=[tensor], id="42", raw_input_contents=raw)
        return services.GRPCInferenceServiceStub(self.channel).ModelInfer(request, timeout=TIMEOUT_S)


@pytest.fixture(scope="session")
def definitions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """TorchServe's own .proto files on the path, where grpcio-tools generates the stubs from."""
    folder = tmp_path_factory.mktemp("definitions")
    with zipfile.ZipFile(Path(ts.__file__).parent / "frontend" / "model-server.jar") as jar:
        for name in PROTOS:
            jar.extract(name, folder)
    sys.path.insert(0, str(folder))
    yield
    sys.path.remove(str(folder))


@pytest.fixture
def grpc_user(service: Service, definitions: None) -> Iterator[GrpcUser]:
    with grpc.insecure_channel(service.grpc_address) as channel:
        yield GrpcUser(channel, (("authorization", f"Bearer {service.token}"),))


@pytest.fixture
def open_user(cloud: Service, definitions: None) -> Iterator[GrpcUser]:
    """Of a server with `ts_open_inference_protocol=true`."""
    with grpc.insecure_channel(cloud.grpc_address) as channel:
        yield GrpcUser(channel, ())


@pytest.mark.parametrize("name", ["data", "body"])
def test_grpc_predicts_an_image_with_options_beside_it(grpc_user: GrpcUser, seven: bytes, name: str) -> None:
    answer = grpc_user.predict(**{name: seven, "top_k": b"2"})
    assert [entry["label"] for entry in answer["classes"]] == ["7", "9"]


def test_grpc_takes_the_json_of_the_other_protocols(grpc_user: GrpcUser, seven: bytes) -> None:
    assert best_label(grpc_user.predict(data=to_v1(seven).encode())["predictions"][0]) == "7"
    assert outputs_of(grpc_user.predict(data=json.dumps(to_v2(seven)).encode()))["class_ids"][0] == 7


@pytest.mark.parametrize(
    ("entries", "code"),
    [({"data": GARBAGE}, 400), ({"image": b"x"}, 400), ({"data": b"x", "topk": b"1"}, 422), ({}, 400)],
    ids=["garbage", "another name", "unknown option", "nothing"],
)
def test_over_grpc_an_error_is_in_the_body_alone(grpc_user: GrpcUser, entries: dict[str, bytes], code: int) -> None:
    assert grpc_user.predict(**entries)["code"] == code


@pytest.mark.parametrize("metadata", [(), (("authorization", "Bearer wrong"),)], ids=["no token", "wrong token"])
def test_grpc_needs_the_token(grpc_user: GrpcUser, seven: bytes, metadata: tuple[tuple[str, str], ...]) -> None:
    with pytest.raises(grpc.RpcError, match="Token Authorization failed") as raised:
        GrpcUser(grpc_user.channel, metadata).predict(data=seven)
    assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_open_inference_over_grpc_is_off_as_shipped(service: Service, grpc_user: GrpcUser, seven: bytes) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        grpc_user.infer("BYTES", [1], bytes_contents=[seven])
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_open_inference_over_grpc_gives_tensors_whose_texts_torchserve_quotes(
    open_user: GrpcUser, seven: bytes
) -> None:
    answer = open_user.infer("BYTES", [2], bytes_contents=[seven, GARBAGE])
    contents = {output.name: output.contents for output in answer.outputs}
    assert (answer.id, answer.model_name, answer.model_version) == ("42", "digits", "1.0")
    assert list(contents["class_ids"].int64_contents) == [7, 9, 3, 2, 5, *[-1] * 5]
    first, second = [json.loads(json.loads(text)) for text in contents["predictions"].bytes_contents]
    assert (best_label(first), second["error"]["code"]) == ("7", 400)


def test_open_inference_over_grpc_takes_pixels(open_user: GrpcUser, seven: bytes) -> None:
    pixels = decode_pixels(seven)
    answer = open_user.infer("UINT8", list(pixels.shape), uint_contents=pixels.ravel().tolist())
    assert answer.outputs[1].contents.int64_contents[0] == 7


def test_open_inference_over_grpc_shows_a_failure_in_the_entries(open_user: GrpcUser) -> None:
    (predictions,) = open_user.infer("BYTES", [1], bytes_contents=[GARBAGE]).outputs
    assert json.loads(json.loads(predictions.contents.bytes_contents[0]))["error"]["type"] == "ImageDecodeError"


def test_raw_contents_which_torchserve_drops_are_an_error(open_user: GrpcUser, seven: bytes) -> None:
    (predictions,) = open_user.infer("BYTES", [1], raw=(len(seven).to_bytes(4, "little") + seven,)).outputs
    assert "0 elements" in json.loads(json.loads(predictions.contents.bytes_contents[0]))["error"]["message"]


def test_the_name_that_other_clients_call_the_service_by_is_unknown(open_user: GrpcUser) -> None:
    call = open_user.channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
    with pytest.raises(grpc.RpcError) as raised:
        call(b"", timeout=TIMEOUT_S)
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


# All of them in one batch


def test_all_clients_share_a_batch_with_bad_requests(service: Service, grpc_user: GrpcUser, seven: bytes) -> None:
    triton_user = TritonUser(service, service.token)
    token = {"Authorization": f"Bearer {triton_user.token}"}
    sizes: list[int] = []

    def post(**arguments: Any) -> dict[str, Any]:
        url = f"{service.url}/predictions/digits"
        response = requests.post(url, timeout=TIMEOUT_S, **{**arguments, "headers": token | arguments["headers"]})
        sizes.append(int(response.headers["X-Batch-Size"]))
        answer: dict[str, Any] = response.json()
        return answer

    calls: dict[str, tuple[Callable[[], Any], Any]] = {
        "raw": (lambda: best_label(post(data=seven, headers=OCTETS)), "7"),
        "garbage": (lambda: post(data=GARBAGE, headers=OCTETS)["code"], 400),
        "V1": (lambda: best_label(post(data=to_v1(seven), headers=JSON)["predictions"][0]), "7"),
        "V2": (lambda: outputs_of(post(json=to_v2(seven), headers={}))["labels"][0], "7"),
        "V2, broken": (lambda: post(json={"inputs": [{"shape": 5}]}, headers={})["type"], "MalformedRequestError"),
        "tritonclient": (lambda: triton_user.infer("digits", encoded_tensor(seven)).as_numpy("class_ids")[0, 0], 7),
        "gRPC": (lambda: best_label(grpc_user.predict(data=seven)), "7"),
        "gRPC, garbage": (lambda: grpc_user.predict(data=GARBAGE)["code"], 400),
    }
    for _ in range(5):  # the first worker call of a burst may take a single request; one shared batch is the proof
        sizes.clear()
        with ThreadPoolExecutor(len(calls)) as pool:
            futures = {name: pool.submit(call) for name, (call, _) in calls.items()}
        assert {name: future.result() for name, future in futures.items()} == {
            name: expected for name, (_, expected) in calls.items()
        }
        if sizes == [len(calls)] * len(sizes):
            return
    raise AssertionError(f"no burst shared one batch: {sizes}")


# curl

CURL = shutil.which("curl") or ""
CURL_FORMS: dict[str, tuple[list[str], str]] = {
    "raw": (["-T", str(SEVEN), "/predictions/digits"], "classes"),
    "raw, POST": (["-H", "Content-Type: image/png", "--data-binary", f"@{SEVEN}", "/predictions/digits"], "classes"),
    "multipart": (["-F", f"a=@{SEVEN}", "-F", "top_k=1", "/predictions/digits"], "results"),
    "V1": (["-H", "Content-Type: application/json", "-d", "@v1.json", "/v1/models/digits:predict"], "predictions"),
    "V2": (["-H", "Content-Type: application/json", "-d", "@v2.json", "/v2/models/digits/infer"], "outputs"),
    "invocations": (["-T", str(SEVEN), "-X", "POST", "/invocations?model_name=digits&top_k=1"], "classes"),
}


@pytest.mark.skipif(not CURL, reason="curl is not installed")
@pytest.mark.parametrize(("arguments", "key"), CURL_FORMS.values(), ids=CURL_FORMS)
def test_curl(served: Served, seven: bytes, tmp_path: Path, arguments: list[str], key: str) -> None:
    (tmp_path / "v1.json").write_text(to_v1(seven))
    (tmp_path / "v2.json").write_text(json.dumps(to_v2(seven)))
    *options, path = arguments
    command = [CURL, "-s", "-S", "-H", f"Authorization: Bearer {served.token}", *options, served.url + path]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert finished.returncode == 0, finished.stderr
    assert key in json.loads(finished.stdout), finished.stdout
