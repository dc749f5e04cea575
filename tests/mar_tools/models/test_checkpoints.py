from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from conftest import MakeRecipe
from fakes import TINY_CLASSIFIER
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models

from mar_tools.models.checkpoints import check_files, load_checkpoint
from mar_tools.models.label_files import read_labels_file
from mar_tools.models.misfits import describe_misfit
from mar_tools.models.random_weights import spread_class_scores
from mar_tools.models.recipes import read_recipe
from mar_tools.models.sources.torchvision import (
    default_options,
    find_fitting_entry,
    find_published,
    preprocessing_of_detector,
    preprocessing_of_preset,
)
from mar_tools.models.weight_files import look_into
from mar_tools.models.weights import load_weights
from vision_serving.errors import ConfigError
from vision_serving.graphs.sources import NetworkSource

PYTHON_MODEL = {"source": "python", "file": "tiny.py", "class": "TinyClassifier"}
TINY_WITH_4 = {**PYTHON_MODEL, "arguments": {"num_classes": 4}}


def save(state: Any, path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.pt"])
@pytest.mark.parametrize("wrap", ["", "model", "state_dict"], ids=["bare", "under model", "under state_dict"])
def test_saved_weights_come_back(tiny_recipe: MakeRecipe, name: str, wrap: str) -> None:
    trained = load_checkpoint(read_recipe(tiny_recipe())).network
    state: dict[str, Any] = {
        key: torch.randn_like(value.float()).to(value.dtype) for key, value in trained.state_dict().items()
    }
    path = tiny_recipe(model={**PYTHON_MODEL, "weights": name})
    wrapped = {wrap: state, "epoch": 3} if wrap and not name.endswith("safetensors") else state
    save(wrapped, path.parent / name)
    loaded = load_checkpoint(read_recipe(path)).network.state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[key], state[key]) for key in state)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"head.weight": torch.zeros(4, 8)}, r"head.weight has shape \(4, 8\), expected \(3, 8\); 7 missing keys"),
        ({}, "it has no tensors with names"),
        ({"head.bias": torch.zeros(3)}, "7 missing keys, the first 'features.bias'"),
        ({"extra": torch.zeros(1)}, "1 unexpected keys, the first 'extra'"),
    ],
    ids=["wrong shape", "empty", "a part", "another network"],
)
def test_weights_of_another_network_are_refused_with_what_differs(
    tiny_recipe: MakeRecipe, tmp_path: Path, state: dict[str, Tensor], message: str
) -> None:
    network = load_checkpoint(read_recipe(tiny_recipe())).network
    with pytest.raises(ConfigError, match=message):
        load_weights(network, look_into(save(state, tmp_path / "w.pth")))


def test_a_wrong_class_count_says_where_it_goes() -> None:
    problem = describe_misfit({"head.weight": torch.zeros(3, 8)}, {"head.weight": torch.zeros(4, 8)})
    assert problem.endswith("say how many classes it has by `arguments: {num_classes: 4}` under `model:`")


@pytest.mark.parametrize("found", [5, [1], {"epoch": 3}, None], ids=repr)
def test_what_is_no_state_dict_is_named(found: object, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected a state dict \(names to tensors\), but it has "):
        load_weights(nn.Linear(1, 1), look_into(save(found, tmp_path / "w.pth")))


@pytest.mark.parametrize("key", ["model", "state_dict", "model_state_dict"])
def test_a_training_checkpoint_is_unwrapped(tmp_path: Path, key: str) -> None:
    trained, loaded = nn.Linear(2, 1), nn.Linear(2, 1)
    parallel = {f"module.{name}": values for name, values in trained.state_dict().items()}
    load_weights(loaded, look_into(save({key: parallel, "epoch": 3}, tmp_path / "w.pth")))
    assert torch.equal(loaded.weight, trained.weight)


def test_a_state_dict_that_fits_has_no_problem() -> None:
    network = nn.Linear(2, 2)
    assert describe_misfit(network.state_dict(), network.state_dict()) == ""


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
@pytest.mark.parametrize("content", [b"", b"garbage " * 20, None], ids=["empty", "garbage", "missing"])
def test_a_weights_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=name):
        load_weights(nn.Linear(1, 1), look_into(tmp_path / name))


def test_unknown_published_weights_are_refused_with_the_known_ones() -> None:
    message = r"unknown weights 'V9' for resnet50; expected one of \['DEFAULT', 'IMAGENET1K_V1', 'IMAGENET1K_V2'\]"
    with pytest.raises(ConfigError, match=message):
        find_published(NetworkSource(source="torchvision", name="resnet50"), "V9")


@pytest.mark.parametrize("weights", ["random", "DEFAULT"])
def test_an_unknown_torchvision_model_is_refused(tiny_recipe: MakeRecipe, weights: str) -> None:
    path = tiny_recipe(model={"source": "torchvision", "name": "resnet51", "weights": weights})
    with pytest.raises(ConfigError, match="unknown torchvision model 'resnet51'"):
        load_checkpoint(read_recipe(path))


def test_a_python_model_has_no_published_weights(tiny_recipe: MakeRecipe) -> None:
    with pytest.raises(ConfigError, match="weights 'V1': expected a file"):
        load_checkpoint(read_recipe(tiny_recipe(model={**PYTHON_MODEL, "weights": "V1"})))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"file": "other.py"}, "other.py: no such file"),
        ({"class": "Tiny"}, "has no 'Tiny'; it has .*'TinyClassifier'"),
        ({"class": "not_a_network"}, "gave a int; expected a torch.nn.Module"),
        ({"arguments": {"depth": 3}}, "cannot be built with"),
    ],
    ids=["file", "class", "no module", "arguments"],
)
def test_a_python_source_that_does_not_fit_is_refused(
    tiny_recipe: MakeRecipe, model: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_checkpoint(read_recipe(tiny_recipe(model={**PYTHON_MODEL, "weights": "random", **model})))


def test_a_python_file_that_cannot_be_run_is_refused(tiny_recipe: MakeRecipe) -> None:
    path = tiny_recipe()
    (path.parent / "tiny.py").write_text("def broken(:")
    with pytest.raises(ConfigError, match=r"tiny\.py"):
        load_checkpoint(read_recipe(path))


def test_a_python_file_may_hold_dataclasses_with_postponed_annotations(tiny_recipe: MakeRecipe) -> None:
    path = tiny_recipe()
    file = path.parent / "tiny.py"
    settings = "from dataclasses import dataclass\n\n@dataclass\nclass Settings:\n    width: int = 8\n"
    file.write_text("from __future__ import annotations\n" + settings + file.read_text())
    assert isinstance(load_checkpoint(read_recipe(path)).network, nn.Module)


def test_a_network_of_another_task_is_refused(tiny_recipe: MakeRecipe) -> None:
    path = tiny_recipe("detection", model={**PYTHON_MODEL, "weights": "random"})
    (path.parent / "tiny.py").write_text(TINY_CLASSIFIER)
    with pytest.raises(ConfigError, match=r"needs boxes .* TinyClassifier gave \{0: \(4, 3\)\}"):
        load_checkpoint(read_recipe(path))


def test_random_weights_are_the_same_each_time(tiny_recipe: MakeRecipe) -> None:
    first, second = (load_checkpoint(read_recipe(tiny_recipe())).network.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_random_network_has_batch_norm_statistics_of_real_activations(tiny_recipe: MakeRecipe) -> None:
    state = load_checkpoint(read_recipe(tiny_recipe())).network.state_dict()
    assert not torch.equal(state["norm.running_var"], torch.ones(8))
    assert torch.isfinite(state["norm.running_mean"]).all()


# Labels


@pytest.mark.parametrize(
    ("content", "labels"),
    [
        (["cat", "dog"], ["cat", "dog"]),
        ({"0": "cat", "1": "dog"}, ["cat", "dog"]),
        ({"1": "dog", "0": "cat"}, ["cat", "dog"]),
        ({"0": ["n02123045", "cat"], "1": ["n02085620", "dog"]}, ["cat", "dog"]),
        ({str(index): str(index) for index in (10, 2, 0, 1, 3, 4, 5, 6, 7, 8, 9)}, [str(index) for index in range(11)]),
    ],
    ids=["list", "index_to_name", "unordered", "with wordnet ids", "numbers, not text, order"],
)
def test_labels_are_read_in_both_forms(tmp_path: Path, content: object, labels: list[str]) -> None:
    path = tmp_path / "labels.json"
    path.write_bytes(orjson.dumps(content))
    assert read_labels_file(path) == labels


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"{", "not a readable JSON file"),
        (b"", "not a readable JSON file"),
        (b"[]", "expected a list of labels"),
        (b"{}", "expected a list of labels"),
        (b"[1, 2]", "expected a list of labels"),
        (b'{"0": "cat", "2": "dog"}', "an object from '0' to 'C-1'"),
        (b'{"0": []}', "expected a list of labels"),
        (b'"cat"', "expected a list of labels"),
    ],
    ids=["missing", "cut", "empty", "empty list", "empty object", "numbers", "a gap", "empty entry", "text"],
)
def test_labels_of_another_form_are_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "labels.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read_labels_file(path)


def test_a_labels_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        read_labels_file(tmp_path)


def test_automatic_labels_need_published_weights(tiny_recipe: MakeRecipe) -> None:
    with pytest.raises(ConfigError, match="`labels` is missing, and"):
        load_checkpoint(read_recipe(tiny_recipe(labels="auto")))


def test_automatic_preprocessing_needs_a_torchvision_model(tiny_recipe: MakeRecipe) -> None:
    with pytest.raises(ConfigError, match="preprocessing: auto needs a torchvision, timm or huggingface model"):
        load_checkpoint(read_recipe(tiny_recipe(preprocessing="auto")))


# Preprocessing


@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenet_v3_large", "efficientnet_b0", "vit_b_16", "swin_t", "convnext_tiny"]
)
def test_classification_presets_are_taken_over(name: str) -> None:
    preset = models.get_model_weights(name).DEFAULT.transforms()
    config = preprocessing_of_preset(preset)
    assert [config.resize.size] == preset.resize_size
    assert config.crop == (preset.crop_size[0],) * 2
    assert config.interpolation == preset.interpolation.value
    assert (list(config.mean), list(config.std)) == (list(preset.mean), list(preset.std))


@pytest.mark.parametrize(
    ("name", "mode", "size", "max_size"),
    [
        ("ssdlite320_mobilenet_v3_large", "exact", (320, 320), None),
        ("fasterrcnn_mobilenet_v3_large_320_fpn", "bounded_edges", 320, 640),
        ("fasterrcnn_mobilenet_v3_large_fpn", "bounded_edges", 800, 1333),
    ],
)
def test_detection_transforms_are_taken_over(name: str, mode: str, size: object, max_size: int | None) -> None:
    transform = models.get_model(name, weights=None, weights_backbone=None).transform
    config = preprocessing_of_detector(transform)
    assert (config.resize.mode, config.resize.size, config.resize.max_size) == (mode, size, max_size)
    assert config.antialias is False
    assert (list(config.mean), list(config.std)) == (list(transform.image_mean), list(transform.image_std))


def test_a_detector_keeps_its_own_nms_threshold_and_box_limit() -> None:
    network = models.get_model("ssdlite320_mobilenet_v3_large", weights=None, weights_backbone=None)
    assert default_options(network) == {"iou_threshold": 0.55, "max_detections": 300}
    assert default_options(nn.Linear(1, 1)) == {}


def test_a_random_head_of_zeros_is_given_weights() -> None:
    body, head = nn.Linear(8, 8), nn.Linear(8, 3)
    nn.init.zeros_(head.weight)
    before = body.weight.clone()
    spread_class_scores(nn.Sequential(body, head))
    assert head.weight.any()
    assert torch.equal(body.weight, before)


@pytest.mark.parametrize(
    ("name", "image_size", "crop"), [("vit_h_14", 224, 224), ("vit_h_14", 518, 518), ("vit_b_16", 224, 224)]
)
def test_a_vision_transformer_is_prepared_for_the_size_that_it_was_built_for(
    name: str, image_size: int, crop: int
) -> None:
    network = nn.Module()
    network.image_size = image_size  # type: ignore[assignment]
    entry = find_fitting_entry(models.get_model_weights(name), network)
    assert entry.transforms().crop_size == [crop]


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("labels", {"labels": "nowhere"}),
        ("calibration.images", {"calibration": {"images": "nowhere"}}),
        ("verification.images", {"verification": {"images": "nowhere"}}),
        ("verification.labels", {"verification": {"images": ".", "labels": "nowhere"}}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_path_at_which_nothing_is_is_named_with_its_key(
    key: str, changes: dict[str, Any], tiny_recipe: MakeRecipe
) -> None:
    recipe = read_recipe(tiny_recipe(**changes))
    with pytest.raises(ConfigError, match=rf"^{key}: .*/nowhere: no such file or folder$"):
        check_files(recipe)


def test_a_recipe_whose_paths_are_all_there_has_none_to_name(tiny_recipe: MakeRecipe) -> None:
    check_files(read_recipe(tiny_recipe(verification={"images": ".", "labels": "folders"})))


@pytest.mark.parametrize("stated", [False, True], ids=["auto", "stated"])
def test_the_preprocessing_of_a_weights_file_is_assumed_unless_the_recipe_states_it(
    tiny_recipe: MakeRecipe, stated: bool
) -> None:
    model = {"source": "torchvision", "name": "squeezenet1_1", "arguments": {"num_classes": 3}, "weights": "w.pth"}
    own = {"resize": {"mode": "exact", "size": [64, 64]}}
    path = tiny_recipe(model=model, preprocessing=own if stated else "auto")
    torch.save(models.squeezenet1_1(num_classes=3).state_dict(), path.parent / "w.pth")
    checkpoint = load_checkpoint(read_recipe(path))
    assert checkpoint.published is not None
    if stated:
        assert checkpoint.assumed == ()
    else:
        (line,) = checkpoint.assumed
        assert "w.pth does not say with what it was trained" in line
        assert "`preprocessing: {resize: {mode: shortest_edge, size: 256}, crop: [224, 224]" in line
