"""Waiting ends with the first answer that is true, or with the last one of the time."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterable

import pytest

from mar_tools.command_line import ROOT
from mar_tools.waiting import SignalFlag, wait_until


def one_after_another(answers: Iterable[object]) -> Callable[[], object]:
    left = iter(answers)
    return lambda: next(left)


def test_the_first_answer_that_is_true_is_returned_and_nobody_is_asked_again() -> None:
    assert wait_until(one_after_another([None, "", "here"]), timeout_s=10, poll_s=0.001) == "here"


@pytest.mark.parametrize("timeout_s", [0.0, -1.0], ids=["no time", "a deadline that has passed"])
def test_without_time_it_is_asked_once(timeout_s: float) -> None:
    assert wait_until(one_after_another([[]]), timeout_s) == []


def test_the_last_answer_is_returned_when_the_time_is_up() -> None:
    began = time.monotonic()
    assert wait_until(lambda: None, timeout_s=0.1, poll_s=0.01) is None
    assert 0.1 <= time.monotonic() - began < 5


def test_what_the_condition_raises_ends_the_wait() -> None:
    with pytest.raises(ZeroDivisionError):
        wait_until(lambda: 1 / 0, timeout_s=10)


def test_a_flag_that_was_set_ends_every_wait() -> None:
    flag = SignalFlag()
    assert not flag.wait(0)
    flag.set()
    assert flag.is_set()
    assert flag.wait(60)
    assert flag.wait(60)


OFTEN_INTERRUPTED = """
import os, signal, sys, threading, time
from mar_tools.waiting import SignalFlag

flag, heard = SignalFlag(), 0

def hear(*_):
    global heard
    flag.set()
    heard += 1

def interrupt():
    for number in range(3000):
        os.kill(os.getpid(), signal.SIGUSR1)
        while heard <= number:
            time.sleep(0)

sys.setswitchinterval(1e-5)
signal.signal(signal.SIGUSR1, hear)
threading.Thread(target=interrupt, daemon=True).start()
while heard < 3000:
    flag = SignalFlag()
    flag.wait(0)
"""


def test_a_signal_at_any_moment_of_the_wait_is_heard() -> None:
    """With threading.Event, this stands still after some hundred signals."""
    environment = {"PYTHONPATH": f"{ROOT / 'scripts'}:{ROOT / 'handlers'}"}
    subprocess.run([sys.executable, "-c", OFTEN_INTERRUPTED], env=environment, check=True, timeout=120)
