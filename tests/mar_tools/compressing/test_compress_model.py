"""A network compressed by the command: a recipe that says what it was before, and that builds the network again."""

import json
import resource
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
import yaml
from conftest import RunHere
from safetensors.torch import save_file

from mar_tools.compressing.compression import Compression
from mar_tools.compressing.ladder import copy_whole, make_point
from mar_tools.compressing.originals import read_data, read_original
from mar_tools.compressing.steps import Steps
from mar_tools.models.checkpoints import load_checkpoint
from mar_tools.models.recipes import Recipe, read_recipe
from mar_tools.training.keeping import UnfinishedError
from mar_tools.training.records import begin_record
from mar_tools.training.settings import Settings
from vision_serving.errors import ConfigError
from vision_serving.graphs.fake_quantization import FakeQuantizedConv2d
from vision_serving.graphs.sources import NetworkSource, build_network
from vision_serving.validation import parse_config

SIDE = 32
SOURCE = {"source": "timm", "name": "test_resnet.r160_in1k", "arguments": {"num_classes": 2}}
PREPARED = {"resize": {"mode": "exact", "size": [SIDE, SIDE]}, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}


def draw_shades(folder: Path, count: int, seed: int) -> Path:
    """Draw two classes that the mean of a picture tells: dark and bright noise."""
    draws = np.random.default_rng(seed)
    for label, level in (("bright", 200), ("dark", 40)):
        (folder / label).mkdir(parents=True)
        for index in range(count):
            pixels = draws.normal(level, 20, (SIDE, SIDE, 3)).clip(0, 255).astype(np.uint8)
            PIL.Image.fromarray(pixels).save(folder / label / f"{index:02}.png")
    return folder


@pytest.fixture(scope="module")
def shades(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a recipe with held-out pictures, and a folder to train with."""
    folder = tmp_path_factory.mktemp("shades")
    torch.manual_seed(0)
    network = build_network(NetworkSource.model_validate(SOURCE), Path())
    save_file({name: values.contiguous() for name, values in network.state_dict().items()}, folder / "w.safetensors")
    (folder / "labels.json").write_text('["dark", "bright"]')  # in another order than that of the folders
    draw_shades(folder / "heldout", 6, seed=1)
    recipe = {
        "name": "shades", "task": "classification", "model": {**SOURCE, "weights": "w.safetensors"},
        "labels": "labels.json", "preprocessing": PREPARED,
        "verification": {"images": "heldout", "labels": "folders", "allow": ["one_class"]},
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder / "recipe.yaml", draw_shades(folder / "data", 16, seed=0)


COMMON = ("--epochs", 2, "--batch-size", 8, "--augment", "none", "--learning-rate", 0.01, "--json")


def test_a_result_has_a_baseline_a_floor_and_the_network_that_was_trained(
    shades: tuple[Path, Path], tmp_path: Path, run_here: RunHere
) -> None:
    recipe, data = shades
    steps = ("--prune", 0.5, "--distil-from", recipe, "--hint", "layer3=layer3", "--qat")
    done = run_here("compress_model.py", recipe, "--data", data, *steps, *COMMON, "--output", tmp_path / "half")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["parameters"] < 0.5 * told["parameters_before"]
    found = read_recipe(Path(told["recipe"]))
    assert found.baseline is not None
    assert found.baseline.accuracy == told["baseline_accuracy"]
    assert found.baseline.pictures == 12
    assert found.verification.min_accuracy == pytest.approx(max(0, told["baseline_accuracy"] - 0.01), abs=1e-4)
    assert (found.model.shapes, found.model.fake_quantization) == ("weights", "affine")
    assert (found.precision, found.quantization.scheme) == ("int8", "checkpoint")
    checkpoint = load_checkpoint(found)
    layers = [layer for layer in checkpoint.network.modules() if isinstance(layer, FakeQuantizedConv2d)]
    assert layers
    for layer in layers:  # the scales followed the weights while these were trained
        largest = layer.weight.detach().abs().flatten(1).amax(dim=1) / 127
        assert torch.allclose(layer.rounding.weight_scale, largest.clamp(min=1e-8), rtol=0.05)
    assert checkpoint.labels == ["dark", "bright"]
    assert checkpoint.network(torch.zeros(1, 3, SIDE, SIDE)).shape == (1, 2)


def test_what_is_compressed_twice_is_compared_with_what_stood_before_both(
    shades: tuple[Path, Path], tmp_path: Path, run_here: RunHere
) -> None:
    recipe, data = shades
    baseline = {"name": "large", "accuracy": 1.0, "pictures": 12, "steps": "prune 0.5"}
    values = {**yaml.safe_load(recipe.read_text()), "baseline": baseline}
    values["verification"]["min_accuracy"] = 0.1
    compressed = recipe.with_name("compressed.yaml")
    compressed.write_text(yaml.safe_dump(values))
    output = tmp_path / "again"
    given = ("--data", data, "--prune", 0.3, *COMMON, "--max-accuracy-drop", 0.25, "--output", output)
    done = run_here("compress_model.py", compressed, *given)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["baseline_accuracy"] == 1.0
    found = read_recipe(output / "recipe.yaml")
    assert found.baseline is not None
    assert found.baseline.model_dump() == {**baseline, "map": None, "steps": "prune 0.5; prune 0.3"}
    assert found.verification.min_accuracy == 0.75


def test_classes_that_are_not_the_network_s_are_named(
    shades: tuple[Path, Path], tmp_path: Path, run_here: RunHere
) -> None:
    recipe, data = shades
    wrong = tmp_path / "data"
    for label in ("dark", "light"):
        (wrong / label).mkdir(parents=True)
        (wrong / label / "a.png").write_bytes((data / "dark" / "00.png").read_bytes())
    done = run_here("compress_model.py", recipe, "--data", wrong, "--prune", 0.5, "--output", tmp_path / "half")
    assert done.returncode == 1
    assert "1 folders are none of its classes: light" in done.stderr
    assert not (tmp_path / "half" / "recipe.yaml").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"verification": {}}, "no labelled pictures"),
        ({"model": {**SOURCE, "weights": "random"}}, "its weights are random"),
    ],
)
def test_what_cannot_be_judged_or_was_not_trained_is_refused(
    shades: tuple[Path, Path], tmp_path: Path, run_here: RunHere, change: dict[str, object], message: str
) -> None:
    recipe, data = shades
    other = recipe.with_name(f"other{len(message)}.yaml")
    other.write_text(yaml.safe_dump({**yaml.safe_load(recipe.read_text()), **change}))
    done = run_here("compress_model.py", other, "--data", data, "--prune", 0.5, "--output", tmp_path / "half")
    assert done.returncode == 1
    assert message in done.stderr
    assert not (tmp_path / "half").exists()


def test_the_network_to_compress_is_not_written_over(
    shades: tuple[Path, Path], tmp_path: Path, run_here: RunHere
) -> None:
    recipe, data = shades
    begin_record(recipe.parent, {}, resume=True)  # as a training leaves it
    try:
        for output in (recipe.parent, recipe.parent / "heldout" / "half", data / "half"):
            for force in ([], ["--force"]):  # which nobody is told to give here
                steps = ("--prune", 0.5, *force, "--output", output)
                done = run_here("compress_model.py", recipe, "--data", data, *steps)
                assert done.returncode == 1
                assert done.stderr.startswith(f"error: --output {output}: ")
    finally:
        (recipe.parent / "training.json").unlink()


def test_a_teacher_that_is_refused_leaves_no_training_behind(
    shades: tuple[Path, Path], tmp_path: Path, run_here: RunHere
) -> None:
    recipe, data = shades
    (recipe.parent / "other.json").write_text('["bright", "dark"]')
    other = yaml.safe_load(recipe.read_text()) | {"labels": "other.json"}
    (recipe.parent / "other.yaml").write_text(yaml.safe_dump(other))
    steps = ("--distil-from", recipe.parent / "other.yaml", "--output", tmp_path / "small")
    done = run_here("compress_model.py", recipe, "--data", data, *steps)
    assert done.returncode == 1
    assert "expected the same labels" in done.stderr
    assert not (tmp_path / "small" / "training.json").exists()


def test_a_full_disk_is_no_result_of_a_ladder(shades: tuple[Path, Path], tmp_path: Path) -> None:
    recipe, data = shades
    original = read_original(read_recipe(recipe), "cpu")
    settings = Settings(epochs=1, batch_size=8, augment="none")
    run = Compression(original, read_data(data, original, tmp_path, 0, resume=False), settings, "cpu", 0.01)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))  # less than a checkpoint has
    try:
        with pytest.raises(UnfinishedError, match="go on with --resume"):
            make_point(run, Steps(prune=0.3), tmp_path, "found")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.rglob("point.json")) == []


def test_a_copy_that_was_cut_off_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "floats").mkdir()
    (tmp_path / "floats" / "last.ckpt").write_bytes(b"whole")
    (tmp_path / "int8" / "floats.part").mkdir(parents=True)
    (tmp_path / "int8" / "floats.part" / "best.ckpt").write_bytes(b"ha")
    copy_whole(tmp_path / "floats", tmp_path / "int8" / "floats")
    assert {path.name: path.read_bytes() for path in tmp_path.glob("int8/*/*")} == {"last.ckpt": b"whole"}


def test_a_baseline_without_a_floor_is_refused() -> None:
    values = {
        "name": "m", "task": "classification", "model": {**SOURCE, "weights": "random"},
        "baseline": {"name": "before", "accuracy": 0.9},
    }  # fmt: skip
    with pytest.raises(ConfigError, match="`baseline` needs `min_accuracy` under `verification`"):
        parse_config(Recipe, values, "recipe.yaml")
