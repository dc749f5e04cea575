import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import CPU_BACKENDS

from mar_tools.command_line import HANDLERS
from vision_serving import backends
from vision_serving.backends import load_backend
from vision_serving.config import BackendConfig
from vision_serving.cores import cpu_features
from vision_serving.errors import BackendError, VisionServingError

CPU = torch.device("cpu")
needs_bf16 = pytest.mark.skipif("bf16" not in cpu_features(), reason="this CPU has no bf16 arithmetic")


def test_an_unknown_backend_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"unknown backend 'onx'; expected one of \['aotinductor', 'eager'"):
        load_backend("onx", tmp_path, BackendConfig(), CPU)


@pytest.mark.parametrize("name", CPU_BACKENDS)
def test_a_missing_artifact_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="no such artifact"):
        load_backend(name, tmp_path / "nothing", BackendConfig(), CPU)


def test_a_missing_package_is_refused_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tvm", None)
    monkeypatch.delitem(sys.modules, "vision_serving.backends.tvm", raising=False)
    with pytest.raises(BackendError, match=r"pip install -c constraints.txt -r requirements/tvm\.txt"):
        load_backend("tvm", tmp_path, BackendConfig(), CPU)


def test_a_cpu_without_the_features_that_were_verified_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "cpu_features", lambda: {"avx2"})
    with pytest.raises(BackendError, match=r"this CPU lacks \['vnni'\], with which int8 was verified"):
        load_backend("eager", tmp_path, BackendConfig(precision="int8", cpu_features=("avx2", "vnni")), CPU)


@pytest.mark.parametrize("content", [b"", b"garbage", b"<net></net>"], ids=["empty", "garbage", "no network"])
def test_openvino_refuses_an_artifact_it_cannot_load(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.xml").write_bytes(content)
    with pytest.raises(BackendError, match=r"OpenVINO cannot load model\.xml"):
        load_backend("openvino", tmp_path / "model.xml", BackendConfig(), CPU)


FREED_IN_ORDER = """
import gc, signal, sys
from pathlib import Path
import openvino, torch
from openvino import opset8
from vision_serving.backends import load_backend
from vision_serving.config import BackendConfig

pixels = opset8.parameter([-1, 8], openvino.Type.f32)
openvino.save_model(openvino.Model([opset8.relu(pixels)], [pixels]), sys.argv[1])
def load(precision):
    return load_backend("openvino", Path(sys.argv[1]), BackendConfig(precision=precision), torch.device("cpu"))

first, second = load(sys.argv[2]), load(sys.argv[2])
del first
gc.collect()
del second
gc.collect()
signal.signal(signal.SIGINT, lambda *_: print("handled"))
signal.raise_signal(signal.SIGINT)
"""


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=needs_bf16)])
def test_signals_are_handled_after_several_openvino_models(tmp_path: Path, precision: str) -> None:
    command = [sys.executable, "-c", FREED_IN_ORDER, str(tmp_path / "model.xml"), precision]
    finished = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(HANDLERS)}, capture_output=True, text=True)
    assert (finished.returncode, finished.stdout) == (0, "handled\n"), finished.stderr


# The large batch needs gigabytes. What OpenVINO could not get once, it asks for with every later batch; with one thread
# it raises nothing, leaves the answer of the batch before, and may crash with the next.
STARVE = """
import sys
import openvino, torch
from torch import nn
from vision_serving.backends.openvino import OpenVinoBackend
from vision_serving.foreign_errors import is_out_of_memory
from vision_serving.worker.guard import held_bytes, limit_data

first, second = nn.Conv2d(3, 64, 3, padding=1), nn.Conv2d(64, 64, 3, padding=1)
network = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
small, large = torch.rand(4, 3, 64, 64), torch.rand(4, 3, 1024, 1024)
model, core = openvino.convert_model(network.eval(), example_input=small), openvino.Core()

def compile_request():
    print("compiled")
    settings = {"INFERENCE_NUM_THREADS": int(sys.argv[1])}
    return core.compile_model(model, "CPU", settings).create_infer_request(), ["logits"]

backend = OpenVinoBackend(compile_request)
expected = backend.infer(small)["logits"]
limit_data(held_bytes() + (300 << 20))
for batch in (large, small) * 2:
    try:
        print("right" if torch.equal(backend.infer(batch)["logits"], expected) and batch is small else "wrong")
    except Exception as error:
        print("starved" if is_out_of_memory(error) else type(error).__name__)
"""


@pytest.mark.parametrize(
    ("threads", "expected"),
    [(2, ["compiled", *["starved", "compiled", "right"] * 2]), (1, ["compiled", *["DeviceLostError"] * 4])],
    ids=["two threads", "one thread"],
)
def test_openvino_that_gets_no_memory_answers_no_batch_with_another(threads: int, expected: list[str]) -> None:
    unreported = {**os.environ, "CI": "true"}  # where OpenVINO's converter does not fork to report what it converts
    command = [sys.executable, "-c", STARVE, str(threads)]
    finished = subprocess.run(command, env=unreported, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.split() == expected


def test_openvino_refuses_another_device_than_the_cpu(tmp_path: Path) -> None:
    (tmp_path / "model.xml").write_bytes(b"")
    with pytest.raises(BackendError, match=r"backend 'openvino' runs on \('cpu',\), got device 'cuda:0'"):
        load_backend("openvino", tmp_path / "model.xml", BackendConfig(), torch.device("cuda:0"))


@pytest.mark.parametrize("files", [{}, {"source.json": b"{"}, {"source.json": b"{}"}], ids=["none", "no json", "empty"])
def test_eager_refuses_a_folder_that_is_no_artifact(tmp_path: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(VisionServingError):
        load_backend("eager", tmp_path, BackendConfig(), CPU)
