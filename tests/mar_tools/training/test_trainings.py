"""A training by its command: it is judged as it will be served, and goes on after any end."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import orjson
import PIL.Image
import pytest
import yaml
from conftest import RunHere
from safetensors.torch import load_file

from mar_tools.models.recipes import read_recipe
from mar_tools.training.progress import read_history

ROOT = Path(__file__).resolve().parents[3]
SIDE = 32
COMMON = ("--model", "mobilenet_v3_small", "--weights", "random", "--size", SIDE, "--epochs", 3, "--batch-size", 8)
SETTINGS = (*COMMON, "--augment", "none", "--learning-rate", "0.01")


@pytest.fixture(scope="module")
def shades(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes that the mean of a picture tells: dark and bright noise."""
    folder = tmp_path_factory.mktemp("shades")
    draws = np.random.default_rng(0)
    for label, level in (("bright", 200), ("dark", 40)):
        (folder / label).mkdir()
        for index in range(24):
            pixels = draws.normal(level, 20, (SIDE, SIDE, 3)).clip(0, 255).astype(np.uint8)
            PIL.Image.fromarray(pixels).save(folder / label / f"{index:02}.png")
    return folder


def test_a_training_leaves_a_recipe_with_all_that_it_names(shades: Path, tmp_path: Path, run_here: RunHere) -> None:
    done = run_here("train_model.py", shades, *SETTINGS, "--output", tmp_path / "shades", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    recipe = read_recipe(Path(told["recipe"]))
    assert recipe.name == "shades"
    assert recipe.verification.labels == "folders"
    assert orjson.loads((tmp_path / "shades" / "labels.json").read_bytes()) == ["bright", "dark"]
    heldout = sorted((tmp_path / "shades" / "heldout").rglob("*.png"))
    split = list(csv.DictReader((tmp_path / "shades" / "split.csv").open()))
    tested = {row["file"] for row in split if row["part"] == "test"}
    assert {path.relative_to(tmp_path / "shades" / "heldout").as_posix() for path in heldout} == tested
    rows = list(csv.DictReader((tmp_path / "shades" / "checkpoints" / "training.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert max(float(row["score"]) for row in rows) == told["validation_accuracy"]
    weights = load_file(tmp_path / "shades" / "weights.safetensors")  # batch norms began with means of 0
    assert all(values.any() for name, values in weights.items() if name.endswith("running_mean"))
    with PIL.Image.open(tmp_path / "shades" / "curves.png") as curves:
        assert curves.width > 600


def test_a_search_takes_the_best_of_what_it_tried(shades: Path, tmp_path: Path, run_here: RunHere) -> None:
    done = run_here("train_model.py", shades, *SETTINGS, "--search", 2, "--output", tmp_path / "found", "--json")
    assert done.returncode == 0, done.stderr
    tried = [float(line.split()[0]) for line in done.stderr.splitlines() if line.strip().startswith(("0.", "1."))]
    assert len(tried) == 2
    assert tried == sorted(tried, reverse=True)
    assert json.loads(done.stdout)["settings"]["epochs"] == 3


def test_a_killed_training_goes_on_to_the_answer_of_an_unbroken_one(shades: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    chosen = (*COMMON, "--augment", "standard", "--learning-rate", "0.001", "--epochs", 5)
    script = [sys.executable, str(ROOT / "scripts" / "train_model.py"), str(shades), *map(str, chosen)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = subprocess.Popen([*script, "--output", str(broken)], env=environment, stderr=subprocess.DEVNULL)
    while len(read_history(broken / "checkpoints" / "training.csv")) < 2 and started.poll() is None:
        time.sleep(0.05)
    started.send_signal(signal.SIGKILL)
    started.wait()
    for folder, options in ((broken, ["--resume"]), (whole, [])):
        subprocess.run([*script, "--output", str(folder), *options], env=environment, check=True, capture_output=True)
    figures = []
    for folder in (broken, whole):
        rows = list(csv.DictReader((folder / "checkpoints" / "training.csv").open()))
        figures.append([[row[name] for name in ("epoch", "loss", "validation_loss", "score")] for row in rows])
    assert figures[0] == figures[1]
    recipes = [yaml.safe_load((folder / "recipe.yaml").read_text()) for folder in (broken, whole)]
    assert {key: value for key, value in recipes[0].items() if key not in ("name", "verification")} == {
        key: value for key, value in recipes[1].items() if key not in ("name", "verification")
    }


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_end_is_told_in_one_line_with_its_status(number: signal.Signals, shades: Path, tmp_path: Path) -> None:
    script = [sys.executable, str(ROOT / "scripts" / "train_model.py"), str(shades), *map(str, COMMON)]
    started = subprocess.Popen(
        [*script, "--epochs", "500", "--patience", "500", "--output", str(tmp_path / "m")],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    while not (tmp_path / "m" / "checkpoints" / "last.ckpt").exists() and started.poll() is None:
        time.sleep(0.05)
    os.killpg(started.pid, number)  # as a terminal does: the processes that read pictures get it too
    output, told = started.communicate()
    assert started.returncode == 128 + number
    assert output == ""
    *epochs, end = told.splitlines()
    assert end.startswith("stopped; ")
    assert end.endswith("with --resume goes on")
    assert all(line.startswith("epoch ") for line in epochs[2:])


def test_a_folder_that_cannot_train_holds_no_training(tmp_path: Path, run_here: RunHere) -> None:
    done = run_here("train_model.py", tmp_path / "nothing", *COMMON, "--output", tmp_path / "model")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path / 'nothing'}: no such folder; expected one with a folder of")
    assert not (tmp_path / "model").exists()
