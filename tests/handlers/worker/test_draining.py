import os
import threading
import time
from pathlib import Path

import orjson
import pytest
from conftest import MakeHandler
from fakes import RED, new_context, png

from vision_serving.worker.draining import DRAIN_FILE, leaving_files

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


def test_a_file_of_another_user_refuses_as_well(
    make_handler: MakeHandler, drain_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_permitted(path: str) -> None:  # as root, whom nothing is forbidden, it cannot be tried
        raise PermissionError(path)

    drain_file.touch()
    monkeypatch.setattr(os, "utime", not_permitted)
    context = new_context(drain_file.parent, [{}])
    make_handler("classification").handle([{"body": png(RED)}], context)
    assert context.get_response_status(0)[0] == 503


def test_a_worker_that_is_to_leave_keeps_still_with_a_description_and_with_nothing_else(
    make_handler: MakeHandler, drain_file: Path
) -> None:
    handler, (asked, still) = make_handler("classification"), leaving_files(drain_file, os.getpid())
    asked.touch()
    handler.handle([{"body": png(RED)}], new_context(drain_file.parent, [{}]))
    assert asked.exists()
    context = new_context(drain_file.parent, [{"describe": "True"}])
    describing = threading.Thread(target=handler.handle, args=([{}], context))
    describing.start()
    while not still.exists():
        assert describing.is_alive()
        time.sleep(0.01)
    assert not asked.exists()  # so that whoever scales knows
    assert describing.is_alive()
    still.unlink()
    describing.join()
    assert context.get_response_status(0)[0] == 200


def test_a_worker_goes_on_that_nobody_asked(make_handler: MakeHandler, drain_file: Path) -> None:
    asked, still = leaving_files(drain_file, os.getppid())
    asked.touch()
    make_handler("classification").handle([{}], new_context(drain_file.parent, [{"describe": "True"}]))
    assert asked.exists()
    assert not still.exists()
