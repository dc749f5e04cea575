import runpy

import pytest

from mar_tools.command_line import ROOT
from mar_tools.serving.health import GoldenVerdict, Health
from mar_tools.serving.model_status import ModelStatus, find_differences
from mar_tools.terminal import print_tables
from vision_serving.cores import ThreadPlan

PROPERTIES = """
default_workers_per_model=2
models={\\
  "digits": {"1.0": {"minWorkers": 1, "batchSize": 8, "maxBatchDelay": 2}, "2.0": {"minWorkers": 3}}\\
}
"""


def status(model: str, version: str, workers: int, batch_size: int, max_batch_delay_ms: int) -> ModelStatus:
    threads = ThreadPlan(1, 1, pin=False)
    return ModelStatus(model, version, workers, workers, threads, batch_size, max_batch_delay_ms, "cpu")


@pytest.mark.parametrize(
    ("live", "differences"),
    [
        (status("digits", "1.0", 1, 8, 2), []),
        (status("digits", "1.0", 2, 8, 2), ["digits 1.0: minWorkers is 2, and 1 after a restart"]),
        (
            status("digits", "1.0", 1, 4, 50),
            [
                "digits 1.0: batchSize is 4, and 8 after a restart",
                "digits 1.0: maxBatchDelay is 50, and 2 after a restart",
            ],
        ),
        (status("digits", "2.0", 3, 1, 100), []),
        (status("registered", "1.0", 2, 1, 100), []),
        (status("registered", "1.0", 2, 16, 100), ["registered 1.0: batchSize is 16, and 1 after a restart"]),
    ],
)
def test_what_a_restart_would_change_is_told(live: ModelStatus, differences: list[str]) -> None:
    assert find_differences([live], PROPERTIES) == differences


@pytest.mark.parametrize("golden", ["right", "not checked"])
def test_a_model_takes_one_line_of_80_columns(golden: GoldenVerdict, capsys: pytest.CaptureFixture[str]) -> None:
    health_table = runpy.run_path(str(ROOT / "scripts" / "serve_models.py"))["health_table"]
    name = "segments_of_20_chars"
    pinned, shared = (
        ModelStatus(name, "10.0.1", 10, 10, ThreadPlan(32, 8, pin), 128, 1000, "cpu") for pin in (True, False)
    )
    print_tables(health_table([Health(name, "10.0.1", one, golden, None) for one in (pinned, shared)]))
    *_, first, second = capsys.readouterr().out.splitlines()
    assert first.split() == [name, "10.0.1", "10", "of", "10", "128", "1000", *golden.split(), "cpu", "32+8", "pinned"]
    assert second.split()[-2:] == ["cpu", "32+8"]
