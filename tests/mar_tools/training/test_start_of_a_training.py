"""The network that a training begins with, and what its folder says of it."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mar_tools.training.networks import resize_for, start_network
from mar_tools.training.records import begin_record, check_places, check_record
from vision_serving.config import PreprocessingConfig, ResizeConfig
from vision_serving.errors import ConfigError
from vision_serving.graphs.sources import build_network

ROOT = Path(__file__).resolve().parents[3]
WEIGHTS = str(ROOT / "examples" / "digits_classification" / "weights.safetensors")


def test_weights_of_another_number_of_classes_fill_all_but_the_last_layer() -> None:
    start = start_network("mobilenet_v3_small", WEIGHTS, 3, 64)
    assert start.taken == f"242 of 244 tensors of {WEIGHTS}"
    assert start.network(torch.zeros(1, 3, 64, 64)).shape == (1, 3)
    again = build_network(start.source, Path())
    again.load_state_dict(start.network.state_dict())


def test_pictures_are_prepared_as_the_library_says_at_the_size_that_is_asked_for() -> None:
    start = start_network("mobilenet_v3_small", "random", 2, 112)
    assert start.preprocessing.crop == (112, 112)
    assert start.preprocessing.resize == ResizeConfig(mode="shortest_edge", size=128)
    assert start.preprocessing.mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize("name", ["googlenet", "regnet_y_400mf", "test_resnet.r160_in1k", "test_vit.r160_in1k"])
def test_networks_of_both_libraries_take_a_number_of_classes(name: str) -> None:
    size = 96 if name == "googlenet" else None
    start = start_network(name, "random", 4, size)
    size_hw = start.preprocessing.fixed_hw
    assert size_hw is not None
    assert start.network.train()(torch.zeros(2, 3, *size_hw)).shape == (2, 4)


@pytest.mark.parametrize(
    ("name", "weights", "size", "message"),
    [
        ("resnet1", "random", None, "neither torchvision nor timm"),
        ("fasterrcnn_resnet50_fpn", "random", None, "neither torchvision nor timm"),
        ("resnet18", WEIGHTS, None, "0 of the network's 122 tensors"),
        ("vit_b_32", "random", 60, "patches of 32 x 32; give a multiple of 32"),
        ("maxvit_t", "random", 64, "--size: the network does not take pictures of 64 x 64"),
        ("mobilenet_v3_small", "IMAGENET7K", None, "unknown weights 'IMAGENET7K'"),
    ],
)
def test_what_cannot_begin_is_refused(name: str, weights: str, size: int | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        start_network(name, weights, 2, size)


@pytest.mark.parametrize(("name", "size"), [("vit_b_32", 64), ("vit_tiny_patch16_224", 96)])
def test_a_transformer_is_built_for_another_size_with_the_positions_between_its_own(
    name: str, size: int, tmp_path: Path
) -> None:
    whole = start_network(name, "random", 3, None).network.state_dict()
    save_file({key: values.contiguous().clone() for key, values in whole.items()}, tmp_path / "w.safetensors")
    start = start_network(name, str(tmp_path / "w.safetensors"), 2, size)
    assert start.taken.startswith("150 of 152 tensors")
    assert build_network(start.source, Path())(torch.zeros(1, 3, size, size)).shape == (1, 2)


def test_a_margin_keeps_its_share_at_another_size() -> None:
    prepared = PreprocessingConfig(resize=ResizeConfig(mode="letterbox", size=(224, 224)))
    assert resize_for(prepared, 96).resize.size == (96, 96)
    assert resize_for(prepared, None) is prepared


def test_a_folder_that_holds_a_training_is_not_written_over(tmp_path: Path) -> None:
    check_record(tmp_path, {"epochs": 3}, resume=False, force=False)
    begin_record(tmp_path, {"epochs": 3}, resume=False)
    with pytest.raises(ConfigError, match="--resume goes on with it"):
        check_record(tmp_path, {"epochs": 3}, resume=False, force=False)
    check_record(tmp_path, {"epochs": 3}, resume=True, force=False)
    check_record(tmp_path, {"epochs": 4}, resume=False, force=True)
    with pytest.raises(ConfigError, match="has epochs 3, now it is 4"):
        check_record(tmp_path, {"epochs": 4}, resume=True, force=False)


def test_nothing_goes_on_where_nothing_began(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no training"):
        check_record(tmp_path, {}, resume=True, force=False)


def test_a_training_that_begins_anew_leaves_nothing_of_the_one_before(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").write_bytes(b"old")
    begin_record(tmp_path, {}, resume=True)
    assert (tmp_path / "checkpoints").exists()
    begin_record(tmp_path, {}, resume=False)
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("place", ["checkpoints", "heldout"])
def test_folders_that_no_training_wrote_are_not_replaced(place: str, tmp_path: Path) -> None:
    (tmp_path / place).mkdir()
    for force in (False, True):
        with pytest.raises(ConfigError, match=f"holds {place}, which no training wrote"):
            check_record(tmp_path, {}, resume=False, force=force)


@pytest.mark.parametrize(
    ("output", "source", "is_refused"),
    [
        ("data", "data", True),
        ("data/model", "data", True),
        ("model", "model/heldout", True),
        ("model", "model/calibration/a", True),
        ("model", "data", False),
        ("", "data", False),
    ],
)
def test_a_result_does_not_take_the_place_of_what_it_is_made_of(
    output: str, source: str, is_refused: bool, tmp_path: Path
) -> None:
    if not is_refused:
        check_places(tmp_path / output, tmp_path / source)
        return
    with pytest.raises(ConfigError, match="give a"):
        check_places(tmp_path / output, tmp_path / source)


def test_a_training_that_begins_anew_leaves_no_result_of_an_earlier_ladder(tmp_path: Path) -> None:
    for place in ("points/prune0.5", "exports/m"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "point.json").write_bytes(b"{}")
    begin_record(tmp_path, {}, resume=False)
    assert list(tmp_path.rglob("point.json")) == []
