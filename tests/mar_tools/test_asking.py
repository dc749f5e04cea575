import subprocess
import sys
from pathlib import Path

import pytest

from mar_tools.asking import AskedProcess, ProcessLostError
from mar_tools.child_processes import isolated


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import time; time.sleep(60)", r"gave up after 0\.5 s"),
        ("input(); import os; os.abort()", "crashed: signal SIGABRT"),
        ("input()", "ended before its time"),
        ("""input(); print('{"problem": "no such operator"}')""", "no such operator"),
    ],
    ids=["hangs", "crashes", "ends", "says why it cannot"],
)
def test_a_process_that_is_lost_says_why_and_is_gone(tmp_path: Path, code: str, message: str) -> None:
    pipe, log = subprocess.PIPE, tmp_path / "log"
    with (
        log.open("ab") as errors,
        isolated([sys.executable, "-c", code], stdin=pipe, stdout=pipe, stderr=errors, bufsize=0) as process,
    ):
        asked = AskedProcess(process, log, timeout_s=0.5 if "sleep" in code else 20)
        with pytest.raises(ProcessLostError, match=message):
            asked.ask({"question": 1})
        with pytest.raises(ProcessLostError, match="its process has ended"):
            asked.ask({"question": 1})
        assert process.poll() is not None
