"""Archives of TorchServe's own handlers become recipes that build."""

import tempfile
from pathlib import Path

import orjson
import pytest
import torch
from conftest import OncePerRun, RunHere, build_without_timing
from model_archiver.model_archiver_config import ModelArchiverConfig
from model_archiver.model_packaging import generate_model_archive
from torchvision.models.resnet import BasicBlock, ResNet

from mar_tools.archives.archive import check_archive
from mar_tools.command_line import ROOT
from mar_tools.drafting.drafts import Hints
from mar_tools.drafting.forms import draft_recipe
from mar_tools.models.checkpoints import load_checkpoint
from mar_tools.models.recipes import read_recipe
from vision_serving.errors import ConfigError

MODEL = """from model_archiver.model_archiver_config import ModelArchiverConfig
from model_archiver.model_packaging import generate_model_archive
from torchvision.models.resnet import BasicBlock, ResNet

raise_if_run = {raises}


class ImageClassifier(ResNet):
    def __init__(self):
        super().__init__(BasicBlock, [1, 1, 1, 1], num_classes=3)
"""
BUILD_MODEL = ROOT / "scripts" / "build_model.py"
INDEX = {"0": ["n01", "cat"], "1": "dog", "2": ["n03", "bird"]}


def pack(folder: Path, name: str, weights: Path, handler: str = "image_classifier", **more: str) -> Path:
    """Pack as torch-model-archiver does."""
    config = ModelArchiverConfig(
        name, handler, serialized_file=str(weights), version="1.2", export_path=str(folder), force=True, **more
    )
    with pytest.MonkeyPatch.context() as patch:
        (folder / "work").mkdir(exist_ok=True)
        patch.setattr(tempfile, "tempdir", str(folder / "work"))  # where it works, under the model's name
        generate_model_archive(config)
    return folder / f"{name}.mar"


@pytest.fixture(scope="module")
def stock(run_folder: Path, once_per_run: OncePerRun) -> Path:
    """A folder of stock archives of one small network: its state dict and its file, and its program."""
    folder = run_folder / "stock_archives"
    once_per_run("stock_archives", lambda: pack_all(folder))
    return folder


def pack_all(folder: Path) -> None:
    folder.mkdir()
    model, index = folder / "model.py", folder / "index_to_name.json"
    index.write_bytes(orjson.dumps(INDEX))
    torch.manual_seed(0)
    network = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=3).eval()
    torch.save(network.state_dict(), folder / "small.pth")
    torch.jit.trace(network, torch.rand(2, 3, 224, 224)).save(str(folder / "small.pt"))  # type: ignore[no-untyped-call]
    torch.save(network, folder / "whole.pth")
    model.write_text(MODEL.format(raises="1 / 0"))
    pack(folder, "untouched", folder / "small.pth", model_file=str(model), extra_files=str(index))
    model.write_text(MODEL.format(raises=False))
    pack(folder, "eager", folder / "small.pth", model_file=str(model), extra_files=str(index))
    pack(folder, "program", folder / "small.pt", extra_files=str(index))
    pack(folder, "numbers", folder / "small.pt")
    for form, name in {"tgz": "packed", "no-archive": "folder"}.items():
        more = {"archive_format": form, "model_file": str(model), "extra_files": str(index)}
        pack(folder, name, folder / "small.pth", **more)
    pack(folder, "packed_program", folder / "small.pt", archive_format="tgz", extra_files=str(index))


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("eager.mar", "python"),
        ("program.mar", "torchscript"),
        ("packed.tar.gz", "python"),
        ("packed_program.tar.gz", "torchscript"),
        ("folder", "python"),
    ],
)
def test_a_stock_classifier_becomes_an_archive_by_two_commands(
    stock: Path, file: str, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_here: RunHere
) -> None:
    monkeypatch.chdir(tmp_path)
    name = file.partition(".")[0]
    written = run_here("new_recipe.py", stock / file)
    assert written.returncode == 0, written.stderr
    assert written.stdout.splitlines()[-1] == f"next: python {BUILD_MODEL} {name}/{name}.yaml"
    recipe = read_recipe(tmp_path / name / f"{name}.yaml")
    assert recipe.model.source == source
    checkpoint = load_checkpoint(recipe)
    assert checkpoint.labels == ["cat", "dog", "bird"]
    assert checkpoint.preprocessing.crop == (224, 224)
    assert checkpoint.preprocessing.resize.size == 256
    assert check_archive(build_without_timing(tmp_path / name / f"{name}.yaml", "eager", tmp_path)) == (name, "1.2")


def test_an_archive_that_was_cut_short_is_refused(stock: Path, tmp_path: Path) -> None:
    whole = (stock / "packed.tar.gz").read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigError, match=r"cut\.tar\.gz: (cannot be read|damaged|compressed)"):
        draft_recipe(str(tmp_path / "cut.tar.gz"), Hints())


def test_the_code_of_an_archive_does_not_run(stock: Path) -> None:
    """Its model.py divides by zero."""
    draft = draft_recipe(str(stock / "untouched.mar"), Hints())
    assert draft.recipe["model"]["class"] == "ImageClassifier"


def test_classes_without_names_are_numbered(stock: Path) -> None:
    draft = draft_recipe(str(stock / "numbers.mar"), Hints())
    assert orjson.loads(draft.files["numbers.labels.json"]) == ["class 0", "class 1", "class 2"]
    assert any("names of the classes" in note for note in draft.notes)


def test_a_recipe_that_is_there_is_not_written_over(
    stock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_here: RunHere
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "eager" / "eager.yaml"
    recipe.parent.mkdir()
    recipe.write_text("name: mine")
    refused = run_here("new_recipe.py", stock / "eager.mar")
    assert refused.returncode == 1
    assert "is there already; give --force" in refused.stderr
    assert recipe.read_text() == "name: mine"
    assert [path.name for path in recipe.parent.iterdir()] == ["eager.yaml"]
    assert run_here("new_recipe.py", stock / "eager.mar", "--force").returncode == 0
    assert read_recipe(recipe).name == "eager"


def test_what_no_stock_handler_serves_is_refused(stock: Path, tmp_path: Path) -> None:
    whole = pack(tmp_path, "whole", stock / "whole.pth", model_file=str(stock / "model.py"))
    with pytest.raises(ConfigError, match=r"a whole pickled model .*; save model.state_dict\(\) instead"):
        draft_recipe(str(whole), Hints())
    own = pack(tmp_path, "own", stock / "small.pt", handler=str(stock / "model.py"))
    with pytest.raises(ConfigError, match="its handler is 'model', a program of its own"):
        draft_recipe(str(own), Hints())
    alone = pack(tmp_path, "alone", stock / "small.pth")
    with pytest.raises(ConfigError, match=r"small.pth is no TorchScript file, and the archive has no model file"):
        draft_recipe(str(alone), Hints())


def test_our_own_archive_is_refused(archive: Path) -> None:
    with pytest.raises(ConfigError, match="built by this project already"):
        draft_recipe(str(archive), Hints())
