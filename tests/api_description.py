"""docs/use/openapi.yaml, and what it says of an answer."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests
import yaml

PATH = Path(__file__).resolve().parents[1] / "docs" / "use" / "openapi.yaml"
JSON_TYPE = "application/json"


class ApiDescription:
    """References are followed, schemas checked."""

    def __init__(self) -> None:
        self.document: dict[str, Any] = yaml.safe_load(PATH.read_text(encoding="utf-8"))
        self.schemas: dict[str, Any] = self.document["components"]["schemas"]

    def resolve(self, node: Any) -> Any:
        """What stands where a `$ref` points to."""
        while "$ref" in node:
            reference = node["$ref"].removeprefix("#/").split("/")
            node = self.document
            for part in reference:
                node = node[part]
        return node

    def operations(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """(method, path, operation)"""
        for path, item in self.document["paths"].items():
            for method, operation in item.items():
                yield method, path, operation

    def check(self, schema: Any, value: object) -> None:
        """Raises jsonschema's ValidationError."""
        from openapi_schema_validator import OAS30Validator  # a second and a half, in each process of the tests

        OAS30Validator({"allOf": [schema], "components": self.document["components"]}).validate(value)

    def check_answer(self, path: str, response: requests.Response, method: str = "post") -> None:
        """Its status, its headers, its content type and its JSON are those of this path of the document."""
        described = self.document["paths"][path][method]["responses"]
        assert str(response.status_code) in described, f"{path} may not answer {response.status_code}: {response.text}"
        answer = self.resolve(described[str(response.status_code)])
        missing = [name for name in answer.get("headers", {}) if name not in response.headers]
        assert missing in ([], ["Inference-Header-Content-Length"])
        content_type = response.headers.get("Content-Type", "").partition(";")[0]
        if response.content:
            assert content_type in answer["content"]
        if content_type == JSON_TYPE and response.content:
            self.check(answer["content"][JSON_TYPE]["schema"], response.json())
        if "X-Precision" in response.headers:
            self.check_headers(response)

    def check_headers(self, response: requests.Response) -> None:
        """Those of every answer of a model."""
        headers = self.document["components"]["headers"]
        for name, description in (("X-Precision", headers["Precision"]), ("X-Backend", headers["Backend"])):
            self.check(description["schema"], response.headers[name])
        self.check(headers["BatchSize"]["schema"], int(response.headers["X-Batch-Size"]))
        self.check(headers["BatchFailed"]["schema"], int(response.headers["X-Batch-Failed"]))

    def examples(self, node: Any) -> dict[str, Any]:
        """Name -> value, of a response or a request body."""
        content = self.resolve(node).get("content", {}).get(JSON_TYPE, {})
        return {name: example["value"] for name, example in content.get("examples", {}).items()}
