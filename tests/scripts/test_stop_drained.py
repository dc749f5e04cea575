import time
from pathlib import Path
from typing import Any

from http_fakes import Answer, Request, serve_requests

from mar_tools.draining import answer_all, pass_workers
from mar_tools.ports import find_free_ports
from mar_tools.server import Server
from mar_tools.torchserve_api import ServerAddress, TorchServeClient

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

    workers = [{"pid": pid, "status": "READY"} for pid in (1, 2)]
    entry: dict[str, Any] = {"modelVersion": "1.0", "workers": workers}
    with serve_requests(answer) as url:
        client = TorchServeClient(ServerAddress(url, url, None), time.monotonic() + 1)
        problem = pass_workers(client, ("digits", entry))
    assert problem is not None
    assert "worker 2" in problem
    assert 2 <= len(asked) <= 25
