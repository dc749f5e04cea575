"""What holds of TVM alone; that it gives what eager gives is told with the other backends."""

import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import CPU, INSTALLED, MakeRecipe, TinyModel

from mar_tools.exporting.export import export_model
from mar_tools.models.checkpoints import load_checkpoint
from mar_tools.models.recipes import read_recipe
from vision_serving.backends import load_backend
from vision_serving.config import BackendConfig, read_handler_config
from vision_serving.cores import cpu_features
from vision_serving.errors import BackendError

needs_tvm = pytest.mark.skipif("tvm" not in INSTALLED, reason="pip install -r requirements/tvm.txt")


@pytest.mark.skipif(bool(find_spec("tvm")), reason="TVM is installed")
def test_a_missing_package_goes_by_the_name_to_install(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"needs the package 'tvm': pip install .* -r requirements/tvm\.txt"):
        load_backend("tvm", tmp_path, BackendConfig(), CPU)


@needs_tvm
def test_an_archive_asks_for_the_vector_instructions_that_it_was_compiled_with(tiny_classifier: TinyModel) -> None:
    config = read_handler_config(tiny_classifier.folders["tvm"] / "model-config.yaml")
    assert set(config.cpu_features) == {"avx2", "avx512"} & cpu_features()


@needs_tvm
@pytest.mark.parametrize(("name", "message"), [("model.so", r"cannot load model\.so"), ("model.json", r"model\.json")])
def test_a_damaged_artifact_is_refused(tiny_classifier: TinyModel, tmp_path: Path, name: str, message: str) -> None:
    for path in tiny_classifier.folders["tvm"].glob("model.*"):
        shutil.copyfile(path, tmp_path / path.name)
    (tmp_path / name).write_bytes(b"damaged")
    with pytest.raises(BackendError, match=message):
        load_backend("tvm", tmp_path / "model.so", BackendConfig(), CPU)


@needs_tvm
def test_a_model_of_any_size_is_refused(tiny_recipe: MakeRecipe, tmp_path: Path) -> None:
    resize = {"mode": "bounded_edges", "size": 32, "max_size": 64}
    recipe = read_recipe(tiny_recipe(preprocessing={"resize": resize}))
    with pytest.raises(BackendError, match="tvm compiles for images of one size"):
        export_model(recipe, load_checkpoint(recipe), "tvm", "fp32", tmp_path)


@needs_tvm
def test_without_a_linker_the_export_says_so(
    tiny_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    recipe = read_recipe(tiny_recipe())
    with pytest.raises(BackendError, match="tvm needs a C"):
        export_model(recipe, load_checkpoint(recipe), "tvm", "fp32", tmp_path)
