import os
import time
from pathlib import Path
from typing import Any

from http_fakes import Answer, Request, serve_requests

from mar_tools.draining import answer_all, pass_workers
from mar_tools.ports import find_free_ports
from mar_tools.server import Server
from mar_tools.torchserve_api import ServerAddress, TorchServeClient

GONE = 2**31 - 1  # no process has this number
REFUSED = b'{"code": 503, "type": "DrainingError", "message": "this server is about to stop"}'


def test_workers_refuse_though_the_management_api_does_not_answer(tmp_path: Path) -> None:
    [closed] = find_free_ports(1)
    config = tmp_path / "config.properties"
    config.write_text(f"management_address=http://127.0.0.1:{closed}\ndisable_token_authorization=true\n")
    server = Server(config)
    server.temporary.mkdir()
    try:
        [problem] = answer_all(server, time.monotonic() + 10, lambda step: None)
        assert "no server answers" in problem
        assert server.drain_file.exists()
    finally:
        server.stop()


def test_while_one_worker_is_busy_the_others_are_not_asked_all_the_time() -> None:
    """They would take the cores that it needs."""
    asked: list[str] = []

    def answer(request: Request) -> Answer:
        asked.append(request.path)
        return Answer(503, REFUSED, {"X-Worker-Pid": "1"})

    workers = [{"pid": pid, "status": "READY"} for pid in (1, os.getpid())]  # processes that live
    entry: dict[str, Any] = {"modelVersion": "1.0", "workers": workers}
    with serve_requests(answer) as url:
        client = TorchServeClient(ServerAddress(url, url, None), time.monotonic() + 3)
        problem = pass_workers(client, ("digits", entry))
    assert problem is not None
    assert f"worker {os.getpid()}" in problem
    assert 2 <= len(asked) <= 70


def test_an_error_of_the_frontend_itself_ends_no_waiting_for_the_other_workers() -> None:
    """A worker ended just now: its 507 has no number of a worker, as an archive that is not ours has none."""
    answers = iter([Answer(507, b'{"message": "Worker died."}'), Answer(503, REFUSED, {"X-Worker-Pid": "1"})])
    entry: dict[str, Any] = {"modelVersion": "1.0", "workers": [{"pid": pid, "status": "READY"} for pid in (1, GONE)]}
    with serve_requests(lambda request: next(answers)) as url:
        client = TorchServeClient(ServerAddress(url, url, None), time.monotonic() + 10)
        assert pass_workers(client, ("digits", entry)) is None
    assert list(answers) == []


def test_an_answer_without_the_number_of_a_worker_is_of_an_archive_that_is_not_ours() -> None:
    entry: dict[str, Any] = {"modelVersion": "1.0", "workers": [{"pid": 1, "status": "READY"}]}
    with serve_requests(lambda request: Answer(200, b"[]")) as url:
        client = TorchServeClient(ServerAddress(url, url, None), time.monotonic() + 10)
        assert pass_workers(client, ("digits", entry)) is None
