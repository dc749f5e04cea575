import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest
import torch
import yaml
from conftest import CPU_BACKENDS, MakeRecipe, TinyModel

from mar_tools.exporting import export
from mar_tools.exporting.export import export_model, replaced_folder
from mar_tools.exporting.export_folders import hash_artifact, load_reference, read_manifest
from mar_tools.exporting.exporters import EXPORTERS, find_candidates, list_candidates, load_exporter
from mar_tools.exporting.exporters.base import Exported, ExportJob
from mar_tools.models.checkpoints import load_checkpoint
from mar_tools.models.recipes import read_recipe
from mar_tools.verification.observations import load_handler
from vision_serving.config import ColourConfig, DeviceType, read_handler_config
from vision_serving.errors import BackendError, ConfigError, MissingPackageError


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_an_export_holds_all_that_a_worker_and_the_next_steps_need(tiny_classifier: TinyModel, backend: str) -> None:
    folder = tiny_classifier.folders[backend]
    assert folder.name == f"{backend}-fp32"
    config = read_handler_config(folder / "model-config.yaml")
    assert (config.backend, config.precision, config.task) == (backend, "fp32", "classification")
    assert (folder / config.artifact).exists()
    assert (folder / "labels.json").read_text() == '["cat","dog","bird"]'
    assert read_manifest(folder).name == "tiny_classification"


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_the_yaml_leaves_workers_and_batching_to_the_server(tiny_classifier: TinyModel, backend: str) -> None:
    document = yaml.safe_load((tiny_classifier.folders[backend] / "model-config.yaml").read_text())
    assert document.keys() == {"responseTimeout", "startupTimeout", "handler"}


@pytest.mark.parametrize("background", [(1, 2, 3), "none"])
def test_the_archive_treats_colours_as_its_recipe_says(
    tiny_recipe: MakeRecipe, tmp_path: Path, background: object
) -> None:
    recipe = read_recipe(tiny_recipe(colours={"background": background, "icc_profiles": "ignore"}))
    folder = export_model(recipe, load_checkpoint(recipe), "eager", "fp32", tmp_path / "exports")
    assert read_handler_config(folder / "model-config.yaml").colours == recipe.colours
    assert recipe.colours == ColourConfig(background=background, icc_profiles="ignore")


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_an_export_holds_no_pickle(tiny_classifier: TinyModel, backend: str) -> None:
    # Not `.pt` either, but for TorchScript's, which PyTorch reads in C++ and knows only tensors and the like. And
    # Inductor's cache is PyTorch's own: programs, and the graphs that call them, which it does read with pickle.
    files = [path for path in tiny_classifier.folders[backend].rglob("*") if path.is_file()]
    suffixes = {path.suffix for path in files if "inductor" not in path.parts}
    allowed = {".json", ".yaml", ".safetensors", ".xml", ".bin", ".py", ".onnx", ".data", ".pt2", ".so", ".png"}
    assert suffixes - allowed <= ({".pt"} if backend == "torchscript" else set())


@pytest.mark.parametrize("backend", ["eager", "onnxruntime", "openvino"])  # PyTorch's files hold counters and fresh ids
def test_exporting_twice_gives_the_same_artifact(tiny_classifier: TinyModel, tmp_path: Path, backend: str) -> None:
    again = export_model(tiny_classifier.recipe, tiny_classifier.checkpoint, backend, "fp32", tmp_path)
    artifact = read_handler_config(again / "model-config.yaml").artifact
    assert hash_artifact(again, artifact) == hash_artifact(tiny_classifier.folders[backend], artifact)


TELL_NOBODY = """
import sys
import mar_tools.exporting.exporters.openvino
import vision_serving.backends.openvino
print([name for name, module in sys.modules.items() if name.startswith("openvino_telemetry") and module is not None])
"""


def test_nobody_is_told_what_is_converted_and_served() -> None:
    """OpenVINO and NNCF report to Google Analytics wherever this package can be imported."""
    finished = subprocess.run([sys.executable, "-c", TELL_NOBODY], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.strip().splitlines()[-1] == "[]"


def listing(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


class FailingExporter(ModuleType):
    @staticmethod
    def export(job: ExportJob, folder: Path) -> Exported:
        (folder / "half.bin").write_bytes(b"half")
        raise BackendError("this graph is not for me")


def test_nothing_is_left_when_an_exporter_fails(
    tiny_classifier: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "load_exporter", lambda *_: FailingExporter("failing"))
    with pytest.raises(BackendError):
        export_model(tiny_classifier.recipe, tiny_classifier.checkpoint, "eager", "fp32", tmp_path)
    assert listing(tmp_path) == ["tiny_classification"]


class ScatteringExporter(ModuleType):
    @staticmethod
    def export(job: ExportJob, folder: Path) -> Exported:
        for name in ("model.pt2", "model.json", "weights.bin"):
            (folder / name).touch()
        return Exported("model.pt2")


def test_an_exporter_writes_no_file_that_the_hash_of_its_artifact_leaves_out(
    tiny_classifier: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "load_exporter", lambda *_: ScatteringExporter("scattering"))
    with pytest.raises(BackendError, match=r"wrote \['weights.bin'\] beside its artifact 'model.pt2'"):
        export_model(tiny_classifier.recipe, tiny_classifier.checkpoint, "eager", "fp32", tmp_path)


def test_a_former_export_stays_when_a_new_one_fails(tmp_path: Path) -> None:
    target = tmp_path / "eager-fp32"
    target.mkdir()
    (target / "former").touch()

    def fail() -> None:
        with replaced_folder(target) as folder:
            (folder / "half").touch()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert listing(tmp_path) == ["eager-fp32", "eager-fp32/former"]


def test_a_new_export_replaces_the_former_whole(tmp_path: Path) -> None:
    target = tmp_path / "eager-fp32"
    target.mkdir()
    (target / "verification.json").touch()
    with replaced_folder(target) as folder:
        (folder / "new").touch()
        assert listing(target) == ["verification.json"]
    assert listing(tmp_path) == ["eager-fp32", "eager-fp32/new"]


@pytest.mark.parametrize("labels", ['["cat"]', '["cat", "dog", "bird", "fish"]'], ids=["too few", "too many"])
@pytest.mark.parametrize("task", ["classification", "detection"])
def test_labels_that_do_not_fit_the_classes_are_refused(
    tiny_recipe: MakeRecipe, tmp_path: Path, task: str, labels: str
) -> None:
    path = tiny_recipe(task)
    (path.parent / "labels.json").write_text(labels)
    recipe = read_recipe(path)
    with pytest.raises(ConfigError, match=r"the model has 3 classes but there are \d labels"):
        export_model(recipe, load_checkpoint(recipe), "eager", "fp32", tmp_path)


def test_options_of_the_recipe_are_the_defaults_of_the_archive(tiny_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = read_recipe(tiny_recipe(options={"top_k": 2}))
    folder = export_model(recipe, load_checkpoint(recipe), "eager", "fp32", tmp_path)
    assert read_handler_config(folder / "model-config.yaml").options == {"top_k": 2}


@pytest.mark.parametrize("content", [None, b"{}"], ids=["missing", "empty"])
def test_a_folder_that_is_no_export_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "export.json").write_bytes(content)
    with pytest.raises(ConfigError, match=r"export\.json"):
        read_manifest(tmp_path)


# Hashes


def test_the_hash_of_a_file_covers_its_siblings(tiny_classifier: TinyModel, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_classifier.folders["openvino"], tmp_path / "copy")
    before = hash_artifact(folder, "model.xml")
    weights = folder / "model.bin"
    weights.write_bytes(b"x" + weights.read_bytes()[1:])
    assert hash_artifact(folder, "model.xml") != before


def test_the_hash_does_not_depend_on_the_place_or_on_other_files(tiny_classifier: TinyModel, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_classifier.folders["eager"], tmp_path / "copy")
    (folder / "candidates.json").touch()
    assert hash_artifact(folder, "model") == hash_artifact(tiny_classifier.folders["eager"], "model")


def test_a_renamed_file_changes_the_hash(tiny_classifier: TinyModel, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_classifier.folders["eager"], tmp_path / "copy")
    before = hash_artifact(folder, "model")
    (folder / "model" / "tiny.py").rename(folder / "model" / "small.py")
    assert hash_artifact(folder, "model") != before


# Candidates


@pytest.mark.parametrize(
    ("backend", "precision", "pairs"),
    [
        ("auto", "int8", [("openvino", "int8"), ("aotinductor", "int8"), ("onnxruntime", "int8")]),
        ("openvino", "auto", [("openvino", "fp32"), ("openvino", "int8"), ("openvino", "bf16")]),
        ("eager", "auto", [("eager", "bf16"), ("eager", "fp32")]),
        ("openvino", "bf16", [("openvino", "bf16")]),
    ],
)
def test_auto_leaves_every_pair_that_fits(backend: str, precision: str, pairs: list[tuple[str, str]]) -> None:
    found = find_candidates(backend, precision, "cpu")
    assert [pair for pair in found if pair in pairs] == pairs  # a further backend has more
    assert all(backend in ("auto", other[0]) and precision in ("auto", other[1]) for other in found)


@pytest.mark.parametrize("device_type", get_args(DeviceType))
def test_every_candidate_is_listed_once_and_has_an_exporter(device_type: DeviceType) -> None:
    listed = list_candidates(device_type)
    assert len(set(listed)) == len(listed)
    assert {backend for backend, _ in listed} <= EXPORTERS.keys()
    assert find_candidates("auto", "auto", device_type) == listed


@pytest.mark.parametrize(
    ("backend", "precision", "message"),
    [
        ("onx", "auto", "unknown backend 'onx'; expected one of"),
        ("eager", "int8", r"backend 'eager' has no precision 'int8' on cpu; it has \['bf16', 'fp32'\]"),
        ("torchscript", "fp16", "backend 'torchscript' has no precision 'fp16' on cpu; it has"),
        ("openvino", "int4", "backend 'openvino' has no precision 'int4' on cpu; it has"),
    ],
)
def test_a_choice_that_leaves_nothing_is_refused_with_what_there_is(backend: str, precision: str, message: str) -> None:
    with pytest.raises(BackendError, match=message):
        find_candidates(backend, precision, "cpu")


def test_an_exporter_whose_package_is_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tvm", None)
    monkeypatch.delitem(sys.modules, EXPORTERS["tvm"], raising=False)
    said = "backend 'tvm' needs the package 'tvm': pip install -c constraints.txt -r requirements/tvm.txt"
    with pytest.raises(MissingPackageError, match=said):
        load_exporter("tvm", "fp32")


@pytest.mark.parametrize("model", ["tiny_classifier", "tiny_detector"])
def test_a_reference_gives_back_the_checkpoint_that_it_was_made_from(
    request: pytest.FixtureRequest, model: str, tmp_path: Path
) -> None:
    tiny: TinyModel = request.getfixturevalue(model)
    moved = shutil.copytree(tiny.folders["eager"], tmp_path / "moved")
    loaded, expected = load_reference(moved), tiny.checkpoint
    assert (loaded.labels, loaded.preprocessing, loaded.options, loaded.candidates_per_class) == (
        expected.labels, expected.preprocessing, expected.options, expected.candidates_per_class,
    )  # fmt: skip
    state, former = loaded.network.state_dict(), expected.network.state_dict()
    assert state.keys() == former.keys()
    assert all(torch.equal(state[name], former[name]) for name in former)
    # What is made from it is the same, too.
    again = export_model(tiny.recipe, loaded, "eager", "fp32", tmp_path)
    assert hash_artifact(again, "model") == hash_artifact(tiny.folders["eager"], "model")


def test_only_eager_fp32_holds_a_checkpoint(tiny_classifier: TinyModel) -> None:
    with pytest.raises(ConfigError, match="openvino fp32, which does not hold the checkpoint"):
        load_reference(tiny_classifier.folders["openvino"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_an_export_for_a_gpu_is_not_loaded_on_the_cpu_instead(tiny_classifier: TinyModel, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_classifier.folders["eager"], tmp_path / "eager-fp32-cuda")
    document = yaml.safe_load((folder / "model-config.yaml").read_text())
    document["handler"]["device_type"] = "cuda"
    (folder / "model-config.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(BackendError, match="exported for a GPU, and PyTorch finds none here"):
        load_handler(folder)


def test_without_a_compiler_aotinductor_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor.cpp_builder import cpp_compiler_search  # a second, which collecting need not wait for

    from mar_tools.exporting.exporters.aotinductor import require_compiler

    monkeypatch.setenv("PATH", str(tmp_path))
    cpp_compiler_search.cache_clear()  # of what PyTorch found before
    with pytest.raises(BackendError, match=r"aotinductor compiles C\+\+ when a model is exported: install g\+\+"):
        require_compiler()


def test_a_network_of_other_channels_is_told_in_few_words_what_it_was_given(tmp_path: Path) -> None:
    gray = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 5), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    torch.jit.trace(gray, torch.rand(2, 1, 64, 64)).save(str(tmp_path / "gray.pt"))  # type: ignore[no-untyped-call]
    preprocessing = {"resize": {"mode": "exact", "size": [64, 48]}}
    model = {"source": "torchscript", "file": "gray.pt"}
    values = {"name": "gray", "task": "classification", "model": model, "labels": "labels.txt"}
    (tmp_path / "labels.txt").write_text("a\nb\nc\nd\n")
    (tmp_path / "gray.yaml").write_text(yaml.safe_dump({**values, "preprocessing": preprocessing}))
    recipe = read_recipe(tmp_path / "gray.yaml")
    with pytest.raises(ConfigError) as refused:
        export_model(recipe, load_checkpoint(recipe), "eager", "fp32", tmp_path / "exports")
    said = str(refused.value)
    assert said.startswith("the model failed on its first image: RuntimeError: Given groups=1")
    assert "`preprocessing` gave it 3 channels of 64 x 48 pixels" in said
    assert "Traceback" not in said
