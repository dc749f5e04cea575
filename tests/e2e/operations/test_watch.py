"""A frontend that hangs is started again, and one that was stopped is not."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from mar_tools.serving import server as serving
from mar_tools.serving import watching
from mar_tools.serving.java_counters import collecting_s
from mar_tools.serving.server import Server
from mar_tools.serving.start_record import mark_stopped
from mar_tools.serving.watching import watch
from mar_tools.waiting import wait_until

from ..conftest import serve

BACK_S = 300.0


class ClockOfHangs:
    """Stands still while the frontend runs, however slow the machine is, and jumps while it hangs."""

    def __init__(self, server: Server) -> None:
        self._server, self._now = server, 0.0

    def __call__(self) -> float:
        return self._now

    def wait(self, seconds: float) -> None:
        time.sleep(0.5)
        frontend = self._server.process()
        if frontend is not None and frontend.status() == psutil.STATUS_STOPPED:
            self._now += watching.SILENT_S


def test_a_frontend_that_hangs_is_replaced_and_one_that_is_stopped_while_it_hangs_is_not(
    archives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "ANSWER_S", 3.0)
    monkeypatch.setattr(serving, "STOP_TIMEOUT_S", 0.5)  # which a frontend that hangs does not heed
    heard: list[str] = []
    with serve([archives / "digits.mar"], tmp_path) as service, ThreadPoolExecutor(1) as pool:
        server = service.server
        clock = ClockOfHangs(server)
        frontend = server.process()
        assert frontend is not None
        assert 0 < (collecting_s(frontend) or 0) < time.time() - frontend.create_time()  # as Java itself says
        frontend.suspend()
        watcher = pool.submit(watch, server, 120, heard.append, clock.wait, clock)
        assert wait_until(lambda: len(heard) >= 4 or watcher.done(), BACK_S)
        assert len(heard) >= 4, watcher.result(0)
        assert not frontend.is_running()
        hanging = server.process()
        assert hanging is not None
        hanging.suspend()
        mark_stopped(server.config)
        assert server.stop()
        assert watcher.result(60) is None
        assert server.process() is None
    before, after = f"frontend {frontend.pid}", f"frontend {hanging.pid}"
    assert heard[1].startswith(f"{before} was silent for ")
    assert [*heard[:1], *heard[2:]] == [f"watching {before}", f"started {after}", f"watching {after}"]
