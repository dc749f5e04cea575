import os
from pathlib import Path

import orjson
import pytest
from conftest import MakeHandler
from fakes import RED, new_context, png

from vision_serving.draining import DRAIN_FILE

JSON = {"content-type": "application/json"}


@pytest.fixture
def drain_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "drain"
    monkeypatch.setenv(DRAIN_FILE, str(path))
    return path


def test_requests_are_served_until_the_file_is_there(make_handler: MakeHandler, drain_file: Path) -> None:
    handler, context = make_handler("classification"), new_context(drain_file.parent, [{}])
    handler.handle([{"body": png(RED)}], context)
    assert context.get_response_status(0)[0] == 200
    assert not drain_file.exists()


def test_then_each_is_refused_in_its_own_form_and_the_file_tells_when(
    make_handler: MakeHandler, drain_file: Path
) -> None:
    drain_file.touch()
    long_ago = 1_000_000_000
    os.utime(drain_file, (long_ago, long_ago))
    context = new_context(drain_file.parent, [{}, JSON, {"X-Inference-Options": "top_k=nonsense"}])
    rows = [{"body": png(RED)}, {"body": b'{"instances": [{"b64": "AAAA"}, {"b64": "AAAA"}]}'}, {"body": b"garbage"}]
    bodies = [orjson.loads(body) for body in make_handler("classification").handle(rows, context)]
    for index, body in enumerate(bodies):
        assert (context.get_response_status(index)[0], body["code"], body["type"]) == (503, 503, "DrainingError")
        assert context.get_response_headers(index)["Retry-After"] == "1"
    assert ["error" in body for body in bodies] == [False, True, False]
    assert drain_file.stat().st_mtime > long_ago
