"""A built archive in a worker process of TorchServe, loaded and asked over its socket."""

import base64
from pathlib import Path

import orjson
import pytest
from conftest import TinyModel
from fakes import encode_image, generate_image
from torchserve_worker import Reply, Request, start_worker

from mar_tools.archives.archive import extract_archive
from mar_tools.building.packing import build_archive
from mar_tools.command_line import HANDLERS

GOOD = encode_image(generate_image(0, (48, 64)))
INSTANCES = orjson.dumps({"instances": [{"b64": base64.b64encode(GOOD).decode()}, {"b64": "!"}]})
REQUESTS = [
    Request([("body", kind, body)], {"content-type": kind})
    for kind, body in (
        ("image/png", GOOD),
        ("image/png", b"garbage"),
        ("application/json", INSTANCES),
        ("application/json", b'{"wrong": 1}'),
    )
]
TELL_MODULES = "\nimport sys\nprint('CORE', __file__, 'mar_tools' in sys.modules)\n"
Served = tuple[TinyModel, Path, Reply, str]


@pytest.fixture(scope="module", params=["tiny_classifier eager", "tiny_detector openvino"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Served:
    """The model, its extracted archive, the reply of a real worker to REQUESTS, and the worker's log."""
    fixture, backend = request.param.split()
    model: TinyModel = request.getfixturevalue(fixture)
    folder = tmp_path_factory.mktemp("served")
    extracted = folder / "model"
    extract_archive(build_archive(model.folders[backend], HANDLERS, folder / "model_store"), extracted)
    with (extracted / "vision_serving" / "__init__.py").open("a") as core:
        core.write(TELL_MODULES)
    handler = orjson.loads((extracted / "MAR-INF" / "MANIFEST.json").read_bytes())["model"]["handler"]
    with start_worker(folder / "worker", [extracted]) as worker:
        loaded = worker.load(extracted, handler)
        assert loaded.code == 200, worker.log()
        return model, extracted, worker.predict(*REQUESTS), worker.log()


def test_the_packed_core_is_the_one_that_runs(served: Served) -> None:
    _, folder, _, log = served
    assert f"CORE {folder / 'vision_serving' / '__init__.py'} False" in log


def test_the_batch_succeeds_as_a_whole_and_each_request_has_its_status(served: Served) -> None:
    reply = served[2]
    assert (reply.code, reply.message) == (200, "Prediction success")
    assert [(answer.request_id, answer.status, answer.phrase) for answer in reply.answers] == [
        ("request-0", 200, "OK"),
        ("request-1", 400, "Bad Request"),
        ("request-2", 200, "OK"),
        ("request-3", 400, "Bad Request"),
    ]


def test_each_answer_has_the_body_of_its_form(served: Served) -> None:
    model, _, reply, _ = served
    key = {"classification": "classes", "detection": "detections"}[model.task]
    raw, garbage, json_answer, malformed = (orjson.loads(answer.body) for answer in reply.answers)
    assert raw[key] is not None
    assert [set(entry) for entry in json_answer["predictions"]] == [set(raw), {"error"}]
    assert json_answer["predictions"][0] == raw
    assert (garbage["code"], garbage["type"]) == (400, "ImageDecodeError")
    assert (malformed["code"], malformed["type"]) == (400, "MalformedRequestError")


def test_each_answer_has_the_headers_of_the_contract(served: Served) -> None:
    for answer in served[2].answers:
        assert answer.content_type == "application/json"
        assert answer.headers["X-Batch-Size"] == "4"
        assert answer.headers["X-Model-Version"] == "1.0"
        assert answer.headers["X-Backend"] in ("eager", "openvino")
        assert answer.headers["X-Precision"] == "fp32"
        assert answer.headers["Server-Timing"].startswith("decode;dur=")
