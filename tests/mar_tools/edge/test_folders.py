"""A folder for ONNX Runtime is whole, verified, and says on one screen how to use it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from conftest import MakeRecipe, RunHere
from safetensors.torch import save_file

from mar_tools.archives.golden_prediction import read_golden
from mar_tools.edge.export import export_edge
from mar_tools.edge.formats import FORMATS, load_format
from mar_tools.models.recipes import read_recipe
from vision_serving.errors import ConfigError

SCREEN = 60  # lines
FILES = {
    "model.ort", "required_operators.config", "model.json", "preprocessing.json", "options.json", "labels.json",
    "golden.png", "golden.json", "verification.json", "README.md", "preprocess.py", "postprocess.py", "predict.py",
    "runtime.py",
}  # fmt: skip


DETECTIONS = {"detections.kt", "detections.swift", "detections.hpp"}


def export(run_here: RunHere, recipe: Path, folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return run_here("export_edge.py", recipe, "--format", "ort", "--output", folder, *arguments)


@pytest.mark.parametrize("task", ["classification", "detection"])
def test_a_folder_has_all_that_a_program_needs_and_its_lines_run(
    tiny_recipe: MakeRecipe, run_here: RunHere, tmp_path: Path, task: str
) -> None:
    folder = tmp_path / "phone"
    done = export(run_here, tiny_recipe(task), folder)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in folder.iterdir()} == FILES | (DETECTIONS if task == "detection" else set())
    report = json.loads((folder / "verification.json").read_text())
    assert report["passed"]
    assert report["runtime"].startswith("onnxruntime ")
    assert report["measured"]["snr_db"] > 90
    assert json.loads((folder / "model.json").read_text())["input"]["type"] == "uint8"
    text = (folder / "README.md").read_text()
    assert len(text.splitlines()) <= SCREEN
    (lines,) = re.findall(r"```bash\npip install .*?\n(.*?)```", text, re.DOTALL)
    script, picture = lines.split()[1:]
    answered = subprocess.run([sys.executable, script, picture], cwd=folder, capture_output=True, text=True)
    assert answered.returncode == 0, answered.stderr
    golden = read_golden(folder)
    assert golden is not None
    assert golden[1].find_differences(json.loads(answered.stdout)) == []
    for given, said in [([], "which picture?"), (["none.png"], "none.png: No such file"), (["README.md"], "a whole")]:
        refused = subprocess.run([sys.executable, script, *given], cwd=folder, capture_output=True, text=True)
        assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (1, "", 1)
        assert said in refused.stderr


def test_a_folder_of_something_else_is_left_alone(tiny_recipe: MakeRecipe, run_here: RunHere, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").touch()
    (tmp_path / "photos" / "model.json").write_text("{}")  # as other programs call theirs
    done = export(run_here, tiny_recipe(), tmp_path / "photos")
    assert (done.returncode, done.stderr.count("\n")) == (1, 2)
    assert "holds something else" in done.stderr
    assert (tmp_path / "photos" / "holiday.jpg").exists()


UNKNOWN = """
import torch
from torch import nn

class Rounded(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, images):
        scale, zero = self.scale.detach() / 50, torch.zeros(1, dtype=torch.int32)
        rounded = torch.fake_quantize_per_tensor_affine(images.mean((2, 3)), scale, zero, -128, 127)
        return torch.stack((rounded[:, 0], rounded[:, 1] - rounded[:, 2]), 1)
"""


def write_recipe(folder: Path, **more: str) -> Path:
    """Write the recipe of a network with an operator that neither ONNX nor ExecuTorch has."""
    (folder / "rounded.py").write_text(UNKNOWN)
    (folder / "labels.json").write_text('["a", "b"]')
    save_file({"scale": torch.ones(1)}, folder / "w.safetensors")
    recipe = {
        "name": "rounded", "task": "classification",
        "model": {"source": "python", "file": "rounded.py", "class": "Rounded", "weights": "w.safetensors", **more},
        "labels": "labels.json", "preprocessing": {"resize": {"mode": "exact", "size": [16, 16]}},
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder / "recipe.yaml"


@pytest.mark.parametrize(("form", "runtime"), [("ort", "ONNX"), ("executorch", "ExecuTorch")])
def test_an_operator_that_a_format_lacks_is_told_in_one_line(
    form: str, runtime: str, run_here: RunHere, tmp_path: Path
) -> None:
    if form == "executorch":
        pytest.importorskip("executorch")
    done = run_here("export_edge.py", write_recipe(tmp_path), "--format", form, "--output", tmp_path / "phone")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"error: {runtime} cannot take this model: ")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "phone").exists()


@pytest.mark.parametrize(("form", "precision"), [("ort", "fp32"), ("executorch", "int8"), ("litert", "int8")])
def test_scales_that_were_trained_are_not_thrown_away(
    form: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if form == "executorch":
        pytest.importorskip("executorch")
    recipe = read_recipe(write_recipe(tmp_path, fake_quantization="affine"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(ConfigError, match="give --precision int8 with --format onnx-web or ort, which keep them"):
        export_edge(recipe, form, precision, tmp_path / "phone", lambda _: None)  # type: ignore[arg-type]
    assert not (tmp_path / "cache").exists()


def test_an_installation_of_a_gigabyte_is_not_begun_without_asking(
    tiny_recipe: MakeRecipe, run_here: RunHere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    done = run_here("export_edge.py", tiny_recipe(), "--format", "litert", "--output", tmp_path / "phone")
    assert done.returncode == 1
    assert "--yes allows it" in done.stderr


def test_an_unknown_format_or_precision_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"expected one of \['executorch', 'litert', 'onnx-web', 'ort'\]"):
        load_format("ncnn", "fp32")
    with pytest.raises(ConfigError, match="it has \\['fp32', 'int8'\\]"):
        load_format("ort", "bf16")


def test_every_format_has_a_readme_for_one_screen() -> None:
    folder = Path(sys.modules[load_format.__module__].__file__ or "").parents[1] / "carried" / "readme"
    assert {path.stem for path in folder.glob("*.md")} == {*FORMATS, "parts"}
