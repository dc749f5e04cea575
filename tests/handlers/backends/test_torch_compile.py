"""What holds of torch_compile alone: where its kernels come from, and that a request never compiles."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import CPU, MakeRecipe, TinyModel
from torch import Tensor
from torch._dynamo.utils import counters

from mar_tools.exporting.export import export_model
from mar_tools.exporting.export_folders import hash_artifact
from mar_tools.models.checkpoints import load_checkpoint
from mar_tools.models.recipes import read_recipe
from vision_serving.backends import load_backend
from vision_serving.backends.base import Backend
from vision_serving.config import BackendConfig
from vision_serving.errors import BackendError


def load(model: TinyModel) -> Backend:
    return load_backend("torch_compile", model.folders["torch_compile"] / "model", BackendConfig(), CPU)


def pixels(count: int) -> Tensor:
    return torch.randint(0, 256, (count, 32, 32, 3), dtype=torch.uint8)


def test_no_batch_compiles_after_loading(tiny_classifier: TinyModel) -> None:
    backend = load(tiny_classifier)
    before = dict(counters["stats"])
    views = [pixels(9)[3:4], pixels(9)[::2], pixels(4).permute(0, 2, 1, 3)]
    for batch in [*map(pixels, (1, 2, 3, 5, 8)), *views]:
        assert len(backend.infer(batch)["logits"]) == len(batch)
    assert dict(counters["stats"]) == before
    assert before["unique_graphs"] > 0, "looked at the wrong counter"


LOAD_AND_LIST_PROGRAMS = """
import sys
from pathlib import Path
started = []
sys.addaudithook(lambda event, details: started.append(details[1]) if event == "subprocess.Popen" else None)
import torch
from vision_serving.backends import load_backend
from vision_serving.config import BackendConfig
load_backend("torch_compile", Path(sys.argv[1]), BackendConfig(), torch.device("cpu"))
print([" ".join(map(str, command)) for command in started if any(str(word).endswith(".cpp") for word in command)])
"""


def load_in_a_fresh_process(artifact: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", LOAD_AND_LIST_PROGRAMS, str(artifact)]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)


def test_a_worker_loads_what_the_export_compiled_and_leaves_the_artifact_and_no_folder(
    tiny_classifier: TinyModel, tmp_path: Path
) -> None:
    folder = tiny_classifier.folders["torch_compile"]
    before = hash_artifact(folder, "model")
    places = {"TMPDIR": str(tmp_path), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "elsewhere")}
    finished = load_in_a_fresh_process(folder / "model", **places)
    assert finished.stdout.strip() == "[]", finished.stderr
    assert "compiled anew" not in finished.stderr
    assert hash_artifact(folder, "model") == before
    assert [path.name for path in tmp_path.rglob("*")] == ["elsewhere"], "and that is empty"


def test_a_cache_of_another_pytorch_is_told(
    tiny_classifier: TinyModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    artifact = shutil.copytree(tiny_classifier.folders["torch_compile"] / "model", tmp_path / "model")
    shutil.rmtree(artifact / "inductor" / "fxgraph")
    shutil.rmtree(artifact / "inductor" / "aotautograd")
    load_backend("torch_compile", artifact, BackendConfig(), CPU)
    assert "kernels were compiled anew" in caplog.text


def test_without_a_compiler_it_says_what_to_do(tiny_classifier: TinyModel, tmp_path: Path) -> None:
    finished = load_in_a_fresh_process(tiny_classifier.folders["torch_compile"] / "model", PATH=str(tmp_path))
    assert finished.returncode != 0
    assert "install g++, or build the model with --backend aotinductor" in finished.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("content", [None, b"{", b"{}"], ids=["missing", "no json", "empty"])
def test_an_artifact_that_says_no_size_is_refused(
    tiny_classifier: TinyModel, tmp_path: Path, content: bytes | None
) -> None:
    artifact = shutil.copytree(tiny_classifier.folders["torch_compile"] / "model", tmp_path / "model")
    (artifact / "compiled.json").unlink()
    if content is not None:
        (artifact / "compiled.json").write_bytes(content)
    with pytest.raises(Exception, match=r"compiled\.json") as caught:
        load_backend("torch_compile", artifact, BackendConfig(), CPU)
    assert type(caught.value).__module__ == "vision_serving.errors"


def test_a_model_of_any_size_is_refused(tiny_recipe: MakeRecipe, tmp_path: Path) -> None:
    resize = {"mode": "bounded_edges", "size": 32, "max_size": 64}
    recipe = read_recipe(tiny_recipe(preprocessing={"resize": resize}))
    with pytest.raises(BackendError, match="torch_compile needs images of one size"):
        export_model(recipe, load_checkpoint(recipe), "torch_compile", "fp32", tmp_path)


UNCOMPILABLE = """
from torch import nn


class TinyClassifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 3)

    def forward(self, images):
        means = images.mean(dim=(2, 3))
        if means.sum() > 0:
            means = means * 2
        return self.head(means)
"""


def test_a_graph_that_cannot_be_compiled_is_refused_with_the_reason(tiny_recipe: MakeRecipe, tmp_path: Path) -> None:
    path = tiny_recipe()
    (path.parent / "tiny.py").write_text(UNCOMPILABLE)
    recipe = read_recipe(path)
    with pytest.raises(BackendError, match=r"torch_compile cannot compile this model: .*branching"):
        export_model(recipe, load_checkpoint(recipe), "torch_compile", "fp32", tmp_path)
