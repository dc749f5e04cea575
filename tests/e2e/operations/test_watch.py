"""Forms of many fields, to TorchServe's own port: a frontend whose heap is full ends, and is started again."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import requests

from mar_tools.waiting import wait_until

from ..conftest import ROOT, serve

FIELDS, FORMS = 400_000, 6
BACK_S = 150.0


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
            assert service.server.stop()
            said, warned = watcher.communicate(timeout=60)
    assert (watcher.returncode, said) == (0, "stopped by another command\n")
    assert "started" in warned
