from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import MakeRecipe

from mar_tools.models.recipes import read_recipe
from vision_serving.config import PreprocessingConfig
from vision_serving.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]
RECIPES = sorted([*(ROOT / "recipes").glob("*.yaml"), *(ROOT / "examples").glob("*/recipe.yaml")])
MINIMAL: dict[str, Any] = {
    "name": "resnet18",
    "task": "classification",
    "model": {"source": "torchvision", "name": "resnet18", "weights": "random"},
}


def write(folder: Path, recipe: object) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_recipe_of_the_project_is_valid(path: Path) -> None:
    assert read_recipe(path).name


@pytest.mark.parametrize(
    ("changes", "found", "meant"),
    [
        ({"Lables": "x"}, "Lables", "'labels'"),
        ({"model": {**MINIMAL["model"], "weight": "x"}}, "model.weight", "'model.weights'"),
        ({"model": {**MINIMAL["model"], "klass": "x"}}, "model.klass", "'model.class'"),
        ({"preprocessing": {"resize": {"mode": "exact", "sise": 5}}}, "preprocessing.resize.sise",
         "'preprocessing.resize.size'"),
        ({"verification": {"minTop1Agreement": 0.9}}, "verification.minTop1Agreement",
         "'verification.min_top1_agreement'"),
        ({"weights": "x.pth"}, "weights", "'model.weights'"),
        ({"mean": [0, 0, 0]}, "mean", "'preprocessing.mean'"),
        ({"model": {**MINIMAL["model"], "labels": "x"}}, "model.labels", "'labels' or 'verification.labels'"),
        ({"options": {"topK": 5}}, "topK", "'top_k'"),
    ],
    ids=["two letters", "ending", "alias", "deep inside", "camel case", "of a section", "of another", "of two",
         "option"],
)  # fmt: skip
def test_an_unknown_key_is_refused_with_the_one_that_is_meant(
    tmp_path: Path, changes: dict[str, Any], found: str, meant: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        read_recipe(write(tmp_path, {**MINIMAL, **changes}))
    assert f"unknown key '{found}'; did you mean {meant}? expected one of [" in str(caught.value)


def test_a_key_that_is_near_to_none_is_refused_with_all(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'quux'; expected one of \['backend', .*'version'\]"):
        read_recipe(write(tmp_path, {**MINIMAL, "quux": 1}))


def test_a_minimal_recipe_leaves_the_rest_to_auto(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path, MINIMAL))
    assert (recipe.labels, recipe.preprocessing, recipe.backend, recipe.precision) == ("auto",) * 4
    assert recipe.version == "1.0"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lables": "x"}, ["unknown key 'lables'", "'labels'", "'model'"]),
        ({"model": {**MINIMAL["model"], "weight": "x"}}, ["unknown key 'model.weight'", "'weights'", "'class'"]),
        ({"model": {"source": "torchvision", "name": "resnet18"}}, ["missing key 'model.weights'"]),
        ({"model": {"source": "kaggle", "weights": "x"}}, ["model.source", "'torchvision'", "'timm'", "'kaggle'"]),
        ({"model": {"source": "torchvision", "weights": "random"}}, ["source 'torchvision' needs 'name'"]),
        ({"model": {"source": "python", "file": "a.py", "weights": "random"}}, ["source 'python' needs 'class'"]),
        ({"model": {**MINIMAL["model"], "file": "a.py"}}, ["source 'torchvision' does not take 'file'"]),
        ({"precision": "int4"}, ["'fp32'", "'bf16'", "'auto'", "int4"]),
        ({"name": "../evil"}, ["'name'", "got '../evil'"]),
        ({"name": "a/b"}, ["'name'"]),
        ({"version": "1 0"}, ["'version'"]),
        ({"verification": {"min_top1_agreement": 99}}, ["min_top1_agreement", "less than or equal to 1"]),
        ({"verification": {"count": 0}}, ["verification.count"]),
        ({"verification": {"labels": "folders"}}, ["`labels` says what is in `images`, which is missing"]),
        ({"verification": {"images": "a", "max_accuracy_drop": 0.1}}, ["needs `images` with `labels` or"]),
        ({"verification": {"images": "a", "labels": "folders", "annotations": "b"}}, ["give one of them"]),
        ({"verification": {"images": "a", "annotations": "b"}}, ["belongs to detection; classification takes"]),
        ({"options": {"topk": 2}}, ["unknown key 'topk'", "['top_k']"]),
        ({"options": {"top_k": 0}}, ["'top_k'", "greater than or equal to 1"]),
    ],
    ids=["unknown", "unknown inside", "no weights", "source", "no name", "no class", "needless file", "precision",
         "path as name", "slash in name", "space in version", "percent", "no images",
         "labels of nothing", "accuracy of nothing", "two truths", "truth of another task", "option", "option value"],
)  # fmt: skip
def test_a_wrong_recipe_names_the_key_the_file_and_what_is_allowed(
    tmp_path: Path, changes: dict[str, Any], words: list[str]
) -> None:
    path = write(tmp_path, {**MINIMAL, **changes})
    with pytest.raises(ConfigError) as caught:
        read_recipe(path)
    assert str(caught.value).startswith(str(path))
    assert [word for word in words if word not in str(caught.value)] == []


@pytest.mark.parametrize("content", ["", "- a", "text", "5"], ids=["empty", "list", "text", "number"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match="expected `key: value` lines"):
        read_recipe(path, weights="random", backend="eager")


def test_images_that_calibrate_do_not_verify(tmp_path: Path) -> None:
    same = {"calibration": {"images": "photos"}, "verification": {"images": "./photos/"}}
    with pytest.raises(ConfigError, match="`calibration` and `verification` name the same images"):
        read_recipe(write(tmp_path, {**MINIMAL, **same}))


def test_a_missing_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read_recipe(tmp_path / "none.yaml")


def test_paths_are_relative_to_the_recipe(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path, MINIMAL))
    assert recipe.path("labels.json") == tmp_path / "labels.json"
    assert recipe.path("/elsewhere/labels.json") == Path("/elsewhere/labels.json")


def test_the_command_line_overrides_the_recipe(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path, MINIMAL), weights=None, backend="openvino", precision="bf16")
    assert (recipe.model.weights, recipe.backend, recipe.precision) == ("random", "openvino", "bf16")


@pytest.mark.parametrize("weights", ["random", "IMAGENET1K_V1"])
def test_weights_by_name_stay_a_name(tmp_path: Path, weights: str) -> None:
    assert read_recipe(write(tmp_path, MINIMAL), weights=weights).model.weights == weights


def test_a_weights_file_of_the_command_line_is_relative_to_where_we_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, MINIMAL)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    recipe = read_recipe(path, weights="mine.safetensors")
    assert recipe.path(recipe.model.weights) == tmp_path / "elsewhere" / "mine.safetensors"


def test_preprocessing_may_be_stated(tiny_recipe: MakeRecipe) -> None:
    assert isinstance(read_recipe(tiny_recipe()).preprocessing, PreprocessingConfig)
