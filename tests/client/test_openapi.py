"""docs/use/openapi.yaml is valid, complete, and accepted by a generator of clients."""

import dataclasses
import shutil
import subprocess
from pathlib import Path

import pytest
from api_description import JSON_TYPE, PATH, ApiDescription
from openapi_spec_validator import validate

import vision_serving.predictions as predictions
from vision_serving import errors
from vision_serving.options import WIDEST_OPTIONS, ExplanationOptions

API = ApiDescription()
GENERATOR = shutil.which("openapi-python-client")  # not in our requirements: it needs other versions


def test_it_is_valid() -> None:
    validate(API.document)


def test_every_example_is_of_its_schema() -> None:
    bodies = [operation["requestBody"] for *_, operation in API.operations() if "requestBody" in operation]
    answers = [answer for *_, operation in API.operations() for answer in operation["responses"].values()]
    checked = 0
    for node in [*bodies, *answers]:
        for value in API.examples(node).values():
            API.check(API.resolve(node)["content"][JSON_TYPE]["schema"], value)
            checked += 1
    assert checked > 10


def test_every_option_of_a_prediction_is_described() -> None:
    options = {name for model in WIDEST_OPTIONS.values() for name in model.model_fields}
    assert options == API.schemas["Options"]["properties"].keys()
    assert API.schemas["Options"]["properties"] == API.schemas["Form"]["properties"]


def test_every_option_of_an_explanation_is_described() -> None:
    text = API.document["paths"]["/explanations/{model}"]["post"]["description"]
    assert [name for name in ExplanationOptions.model_fields if f"`{name}`" not in text] == []


def test_every_error_of_a_request_is_described() -> None:
    found = vars(errors).values()
    statuses = {
        str(error.status) for error in found if isinstance(error, type) and issubclass(error, errors.RequestError)
    }
    described = {status for *_, operation in API.operations() for status in operation["responses"]}
    assert statuses <= described


@pytest.mark.parametrize(
    "result",
    [found for found in vars(predictions).values() if isinstance(found, type) and dataclasses.is_dataclass(found)],
    ids=lambda result: result.__name__,
)
def test_every_part_of_an_answer_is_described(result: type) -> None:
    described = next(kind for kind in result.__mro__ if kind.__name__ in API.schemas)  # detections are one schema
    schema = API.schemas[described.__name__]
    assert {field.name for field in dataclasses.fields(result)} <= schema["properties"].keys()
    assert {field.name for field in dataclasses.fields(described)} == set(schema["required"])


@pytest.mark.skipif(GENERATOR is None, reason="pipx install openapi-python-client")
def test_a_generator_of_clients_understands_all_of_it(tmp_path: Path) -> None:
    command = [
        str(GENERATOR),
        "generate",
        "--path",
        str(PATH),
        "--output-path",
        str(tmp_path / "out"),
        "--meta",
        "none",
    ]
    finished = subprocess.run([*command, "--fail-on-warning"], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert (tmp_path / "out" / "api" / "predictions" / "predict.py").is_file()
