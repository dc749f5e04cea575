"""The trials of a load test: one target under one load."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mar_tools.load_testing.closed_loop import Client, run_closed_loop
from mar_tools.load_testing.in_process import measure_in_process
from mar_tools.load_testing.measurement import Measurement
from mar_tools.load_testing.open_loop import run_open_loop
from mar_tools.load_testing.targets import Request, Target

Kind = Literal["closed", "open", "in_process"]
IN_PROCESS = " (P)"  # after the name of a served model, where it is measured without its server


@dataclass(frozen=True)
class Load:
    """How a target is loaded: by so many connections of a closed loop, requests/s of an open one, images in a batch."""

    kind: Kind
    amount: float

    def __str__(self) -> str:
        return {"closed": "{:g} conn.", "open": "{:g}/s", "in_process": "batch {:g}"}[self.kind].format(self.amount)


@dataclass(frozen=True)
class Trial:
    """measure: runs it once, given the number of the round."""

    target: str
    load: Load
    measure: Callable[[int], Measurement]


def closed_trial(
    target: Target, requests: Sequence[Request], connections: int, duration_s: float, client: Client
) -> Trial:
    def measure(_: int) -> Measurement:
        return run_closed_loop(target, requests, connections, duration_s, client=client)

    return Trial(target.name, Load("closed", connections), measure)


def open_trial(target: Target, requests: Sequence[Request], rate: float, duration_s: float) -> Trial:
    """Each round has arrivals of its own, the same ones for every target of that rate."""

    def measure(number: int) -> Measurement:
        return run_open_loop(target, requests, rate, duration_s, seed=number)

    return Trial(target.name, Load("open", rate), measure)


def in_process_trial(
    name: str, export: Path, images: Sequence[bytes], processes: int, threads: int, batch_size: int, duration_s: float
) -> Trial:
    def measure(_: int) -> Measurement:
        return measure_in_process(export, images, processes, threads, batch_size, duration_s)

    return Trial(name + IN_PROCESS, Load("in_process", batch_size), measure)
