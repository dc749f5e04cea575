"""A frontend whose heap is full of forms, or that hangs, is started again, and one that was stopped is not."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import requests
from conftest import EXAMPLES

from mar_tools.serving.start_record import mark_stopped
from mar_tools.serving.watching import watch
from mar_tools.waiting import wait_until

from ..conftest import ROOT, serve

FIELDS, FORMS = 400_000, 6
BACK_S = 150.0


@pytest.mark.lab
@pytest.mark.skipif(EXAMPLES < 1, reason="a full heap takes minutes: bash scripts/test.sh --lab")
def test_a_frontend_that_forms_have_filled_is_replaced(archives: Path, tmp_path: Path, seven: bytes) -> None:
    field = b'--b\r\nContent-Disposition: form-data; name="%d"\r\n\r\n\r\n'
    form = b"".join(field % number for number in range(FIELDS)) + b"--b--\r\n"
    with serve([archives / "digits.mar"], tmp_path) as service:
        frontend = service.server.process()
        assert frontend is not None
        script = str(ROOT / "scripts" / "serve_models.py")
        command = [sys.executable, script, "watch", "--config", str(service.server.config)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watcher:

            def send(_: int) -> None:
                with suppress(requests.RequestException):  # it ends under them
                    service.post("digits", form, {"Content-Type": "multipart/form-data; boundary=b"})

            with ThreadPoolExecutor(FORMS) as pool:
                list(pool.map(send, range(FORMS)))

            def is_replaced() -> bool:
                now = service.server.process()
                return now is not None and now.pid != frontend.pid and service.server.answers()

            assert wait_until(is_replaced, BACK_S)
            assert wait_until(lambda: all(model.ready for model in service.server.status()), BACK_S)
            assert service.post("digits", seven, {"Content-Type": "image/png"}).status_code == 200
            stop = subprocess.run([sys.executable, script, "stop", *command[3:]], capture_output=True, text=True)
            assert stop.stdout == "stopped\n"
            said, warned = watcher.communicate(timeout=60)
    assert (watcher.returncode, said) == (0, "stopped by another command\n")
    assert "started" in warned


def test_a_frontend_that_hangs_is_replaced_and_one_that_is_stopped_while_it_hangs_is_not(
    archives: Path, tmp_path: Path
) -> None:
    heard: list[str] = []
    with serve([archives / "digits.mar"], tmp_path) as service, ThreadPoolExecutor(1) as pool:
        server = service.server
        frontend = server.process()
        assert frontend is not None
        frontend.suspend()
        # Ten times as fast: one answer that does not come is a silence of over 30 s.
        watcher = pool.submit(
            watch, server, 120, heard.append, lambda _: time.sleep(0.5), lambda: time.monotonic() * 10
        )
        assert wait_until(lambda: "started" in heard, BACK_S)
        assert not frontend.is_running()
        hanging = server.process()
        assert hanging is not None
        hanging.suspend()
        mark_stopped(server.config)
        assert server.stop()
        assert watcher.result(60) is None
        assert server.process() is None
    assert len(heard) == 2
    assert heard[0].startswith("the frontend was silent for")
