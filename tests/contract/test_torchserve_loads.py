"""A built archive in a fresh process, loaded and asked by TorchServe's own Python side."""

import base64
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
from conftest import TinyModel
from fakes import encode_image, generate_image

from mar_tools.archives.archive import extract_archive
from mar_tools.building.packing import build_archive
from mar_tools.command_line import HANDLERS

# Runs as a worker does: the extracted archive first on the path, nothing else of the project, TorchServe's loader.
WORKER = """
import base64, json, os, struct, sys
from pathlib import Path

folder = os.getcwd()
sys.path.insert(0, folder)
import ts
from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl
from ts.model_loader import TsModelLoader

cache = MetricsCacheYamlImpl(config_file_path=str(Path(ts.__file__).parent / "configs" / "metrics.yaml"))
cache.initialize_cache()
manifest = json.loads(Path("MAR-INF/MANIFEST.json").read_text())["model"]
service = TsModelLoader().load(
    manifest["modelName"], folder, manifest["handler"], None, 4, None, True, metrics_cache=cache
)
service.set_cl_socket(None)


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def integer(self):
        self.at += 4
        return struct.unpack("!i", self.data[self.at - 4 : self.at])[0]

    def text(self):
        length = self.integer()
        self.at += length
        return bytes(self.data[self.at - length : self.at]).decode()


def answers(message):
    reader = Reader(message)
    code, reason = reader.integer(), reader.text()
    found = []
    while True:
        length = reader.integer()
        if length == -1:
            return {"code": code, "reason": reason, "answers": found}
        reader.at -= 4
        answer = {"id": reader.text(), "type": reader.text(), "status": reader.integer(), "phrase": reader.text()}
        answer["headers"] = {reader.text(): reader.text() for _ in range(reader.integer())}
        answer["body"] = json.loads(reader.text())
        found.append(answer)


batch = []
for index, request in enumerate(json.load(sys.stdin)):
    value = base64.b64decode(request["body"])
    parameter = {"name": "body", "value": value, "contentType": request["content_type"]}
    if request["content_type"] == "application/json":
        parameter["value"] = json.loads(value)
    header = {"name": b"content-type", "value": request["content_type"].encode()}
    batch.append({"requestId": f"request-{index}".encode(), "parameters": [parameter], "headers": [header]})
import vision_serving

report = answers(service.predict(batch))
report["core"] = vision_serving.__file__
report["tools"] = "mar_tools" in sys.modules
print("REPORT" + json.dumps(report))
"""

GOOD = encode_image(generate_image(0, (48, 64)))
REQUESTS = [
    ("image/png", GOOD),
    ("image/png", b"garbage"),
    ("application/json", orjson.dumps({"instances": [{"b64": base64.b64encode(GOOD).decode()}, {"b64": "!"}]})),
    ("application/json", b'{"wrong": 1}'),
]


def run_worker(folder: Path) -> dict[str, Any]:
    requests = [{"content_type": kind, "body": base64.b64encode(body).decode()} for kind, body in REQUESTS]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    finished = subprocess.run(
        [sys.executable, "-c", WORKER],
        cwd=folder,
        env=environment,
        input=orjson.dumps(requests),
        capture_output=True,
    )
    assert finished.returncode == 0, finished.stderr.decode()
    line = next(line for line in finished.stdout.decode().splitlines() if line.startswith("REPORT"))
    report: dict[str, Any] = orjson.loads(line.removeprefix("REPORT"))
    return report


@pytest.fixture(scope="module", params=["tiny_classifier eager", "tiny_detector openvino"])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TinyModel, Path, dict[str, Any]]:
    fixture, backend = request.param.split()
    model: TinyModel = request.getfixturevalue(fixture)
    folder = tmp_path_factory.mktemp("served")
    extract_archive(build_archive(model.folders[backend], HANDLERS, folder / "model_store"), folder / "model")
    return model, folder / "model", run_worker(folder / "model")


Served = tuple[TinyModel, Path, dict[str, Any]]


def test_the_packed_core_is_the_one_that_runs(served: Served) -> None:
    _, folder, report = served
    assert Path(report["core"]) == folder / "vision_serving" / "__init__.py"
    assert not report["tools"]


def test_the_batch_succeeds_as_a_whole_and_each_request_has_its_status(served: Served) -> None:
    report = served[2]
    assert (report["code"], report["reason"]) == (200, "Prediction success")
    assert [(a["id"], a["status"], a["phrase"]) for a in report["answers"]] == [
        ("request-0", 200, "OK"),
        ("request-1", 400, "Bad Request"),
        ("request-2", 200, "OK"),
        ("request-3", 400, "Bad Request"),
    ]


def test_each_answer_has_the_body_of_its_form(served: Served) -> None:
    model, _, report = served
    key = {"classification": "classes", "detection": "detections"}[model.task]
    raw, garbage, json_answer, malformed = (answer["body"] for answer in report["answers"])
    assert raw[key] is not None
    assert [set(entry) for entry in json_answer["predictions"]] == [set(raw), {"error"}]
    assert json_answer["predictions"][0] == raw
    assert (garbage["code"], garbage["type"]) == (400, "ImageDecodeError")
    assert (malformed["code"], malformed["type"]) == (400, "MalformedRequestError")


def test_each_answer_has_the_headers_of_the_contract(served: Served) -> None:
    for answer in served[2]["answers"]:
        headers = answer["headers"]
        assert answer["type"] == "application/json"
        assert headers["X-Batch-Size"] == "4"
        assert headers["X-Model-Version"] == "1.0"
        assert headers["X-Backend"] in ("eager", "openvino")
        assert headers["X-Precision"] == "fp32"
        assert headers["Server-Timing"].startswith("decode;dur=")
