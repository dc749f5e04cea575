"""Every backend, where memory runs out: an error that says so, and the next batch is answered as ever."""

import subprocess
import sys

import orjson
from conftest import INSTALLED, TinyModel

# In a process of its own, with a bound as a worker's. The large batch needs several times of what is left.
STARVE = """
import resource, sys
from pathlib import Path
import orjson, torch
from vision_serving.backends import load_backend
from vision_serving.config import BackendConfig, read_handler_config
from vision_serving.foreign_errors import is_out_of_memory
from vision_serving.worker.guard import held_bytes, limit_data

torch.set_num_threads(1)
small = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
large = torch.zeros((60_000, 32, 32, 3), dtype=torch.uint8)
loaded, found = {}, {}
for folder in map(Path, sys.argv[1:]):
    config = read_handler_config(folder / "model-config.yaml")
    backend = load_backend(config.backend, folder / config.artifact, BackendConfig(threads=2), torch.device("cpu"))
    loaded[config.backend] = backend, backend.infer(small)["logits"]
unlimited = resource.getrlimit(resource.RLIMIT_DATA)
for name, (backend, expected) in loaded.items():
    resource.setrlimit(resource.RLIMIT_DATA, unlimited)
    limit_data(held_bytes() + (150 << 20))
    try:
        backend.infer(large)
        found[name] = "passed"
    except Exception as error:
        found[name] = "starved" if is_out_of_memory(error) else f"{type(error).__name__}: {error}"
    if not torch.equal(backend.infer(small)["logits"], expected):
        found[name] += ", and wrong after it"
print("FOUND" + orjson.dumps(found).decode())
"""


def test_a_backend_that_gets_no_memory_says_so_and_goes_on(tiny_classifier: TinyModel) -> None:
    folders = [str(tiny_classifier.folders[name]) for name in INSTALLED]
    finished = subprocess.run([sys.executable, "-c", STARVE, *folders], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr[-3000:]
    line = next(line for line in finished.stdout.splitlines() if line.startswith("FOUND"))
    assert orjson.loads(line.removeprefix("FOUND")) == dict.fromkeys(INSTALLED, "starved")
