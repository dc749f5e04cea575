"""lab/gpu/run.sh without a GPU: every step of it, on the CPU, with a network that does nothing."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch

from mar_tools.command_line import ROOT
from mar_tools.serving.config_file import with_values
from mar_tools.serving.ports import free_addresses

SCRIPT = ROOT / "lab" / "gpu" / "run.sh"


def run_gpu_benchmark(*arguments: str, **variables: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **{name: str(value) for name, value in variables.items()}}
    command = ["bash", str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)


def test_the_gpu_benchmark_goes_through_all_its_steps_on_a_cpu(tmp_path: Path) -> None:
    config = tmp_path / "config.properties"
    values = {**free_addresses(), "vmargs": f"-Dlog4j.configurationFile={ROOT / 'log4j2.xml'} -Xmx2g"}
    config.write_text(with_values((SCRIPT.parent / "config.properties").read_text(), values))
    finished = run_gpu_benchmark(
        "--dry-run", CONFIG=config, EXPORTS=tmp_path / "exports", RESULTS=tmp_path / "results",
        ROUNDS=1, ROUND_S=1, BUDGET_MIN=0.01,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stdout + finished.stderr
    document = json.loads((tmp_path / "results" / "nothing.json").read_text())
    measured = {(entry["target"], entry["load"]["kind"]): entry["median"] for entry in document["results"]}
    assert {target for target, _ in measured} == {"nothing", "nothing (P)", "stock-default", "stock-tuned"}
    assert all(entry["wrong"] == 0 < entry["requests_per_s"] for entry in measured.values())
    assert ("nothing", "open") in measured
    assert (tmp_path / "results" / "plots" / "nothing" / "throughput_latency.svg").is_file()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so() -> None:
    finished = run_gpu_benchmark()
    assert finished.returncode == 1
    assert "PyTorch finds no GPU here" in finished.stderr
    assert "--dry-run" in finished.stderr
