"""Candidates in processes of their own: what goes wrong there is a row, and what passed is timed and chosen."""

import os
import signal
import sys
import threading
import zipfile
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest
from conftest import MakeRecipe
from fakes import TINY_CLASSIFIER

from mar_tools.building.build import BuildOptions, build_candidates, folder_of
from mar_tools.building.candidates import find_chosen
from mar_tools.building.packing import build_archive
from mar_tools.building.trials import log_of, new_trial, run_trial
from mar_tools.command_line import HANDLERS
from mar_tools.exporting.export import export_model
from mar_tools.models.checkpoints import load_checkpoint
from mar_tools.models.recipes import Recipe, read_recipe
from mar_tools.verification.gate import require_verified
from mar_tools.waiting import wait_until
from vision_serving.errors import ConfigError

QUICK = BuildOptions(batch_size=2, rounds=1, round_s=0.0, timeout_s=120)


def faulty_recipe(path: Path, fault: str, **changes: Any) -> Recipe:
    """The tiny classifier with a line that runs only where it is traced, as the torchscript exporter does it."""
    traced = f"import os, signal, time, torch\n        if torch.jit.is_tracing():\n            {fault}\n        "
    source = TINY_CLASSIFIER.replace("return self.head", f"{traced}return self.head")
    (path.parent / "tiny.py").write_text(source)
    return read_recipe(path)


def announced(steps: list[str]) -> Any:
    return lambda step, done, total: steps.append(f"{done}/{total} {step}")


def test_a_recipe_becomes_an_archive_with_the_proof_of_what_it_was_chosen_from(
    tiny_recipe: MakeRecipe, tmp_path: Path
) -> None:
    recipe, exports = read_recipe(tiny_recipe(backend="eager")), tmp_path / "exports"
    steps: list[str] = []
    rows = build_candidates(recipe, exports, QUICK, announced(steps))
    assert [(row.backend, row.precision) for row in rows] == [("eager", "bf16"), ("eager", "fp32")]
    assert sorted(row.verdict for row in rows) == ["chosen", "verified"]
    assert all(row.images_per_s.keys() == {"1", "2"} and row.load_s and row.size_mb for row in rows)
    assert rows[1].speedup == 1.0
    assert steps[:2] == ["0/2 reference: eager fp32", "1/2 export and verify eager bf16"]
    assert (steps[2], steps[-1]) == ("2/6 load eager-fp32", "5/6 time eager-bf16")

    chosen = find_chosen(rows)
    assert chosen is not None
    folder = folder_of(chosen, recipe, exports)
    assert require_verified(folder)["passed"]
    with zipfile.ZipFile(build_archive(folder, HANDLERS, tmp_path / "store")) as packed:
        proof = orjson.loads(packed.read("verification.json"))["candidates"]
    assert proof == orjson.loads((exports / recipe.name / "candidates.json").read_bytes())
    assert [(entry["precision"], entry["verdict"]) for entry in proof] == [(r.precision, r.verdict) for r in rows]


def test_a_build_goes_on_when_a_candidate_crashes_and_stops_trying_when_its_budget_is_used_up(
    tiny_recipe: MakeRecipe, tmp_path: Path
) -> None:
    recipe = faulty_recipe(tiny_recipe(backend="torchscript"), "os.kill(os.getpid(), signal.SIGSEGV)")
    steps: list[str] = []
    rows = build_candidates(recipe, tmp_path, replace(QUICK, budget_s=0), announced(steps))
    assert steps[-1] == "3/4 time eager-fp32"  # of those that are left
    assert [(row.name, row.verdict, row.reason) for row in rows] == [
        ("torchscript bf16", "failed", "crashed: signal SIGSEGV"),
        ("torchscript fp32", "not tried", "the budget of 0 min was used up"),
        ("eager fp32", "reference", ""),
    ]
    assert rows[2].rate > 0
    assert find_chosen(rows) is None
    assert (tmp_path / recipe.name / "candidates.json").is_file()


@pytest.mark.skipif(find_spec("tvm") is not None, reason="TVM is installed")
def test_a_backend_that_is_not_installed_is_not_tried(tiny_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = read_recipe(tiny_recipe())
    export_model(recipe, load_checkpoint(recipe), "eager", "fp32", tmp_path)
    row = run_trial(new_trial(recipe, tmp_path, ("tvm", "fp32"), "cpu"), 120)
    assert row.verdict == "not tried"
    assert row.reason.startswith("backend 'tvm' needs the package 'tvm': pip install")


def test_a_reference_that_cannot_be_had_ends_the_build_with_the_reason(tiny_recipe: MakeRecipe, tmp_path: Path) -> None:
    path = tiny_recipe()
    (path.parent / "labels.json").write_text('["cat"]')
    with pytest.raises(ConfigError, match="tiny_classification: `labels`: the model has 3 classes"):
        build_candidates(read_recipe(path), tmp_path, QUICK, announced([]))


def own_python_processes() -> list[list[str]]:
    commands = [child.cmdline() for child in psutil.Process().children(recursive=True)]
    own = [command for command in commands if command[:1] == [sys.executable]]
    return [command for command in own if "resource_tracker" not in " ".join(command)]  # of this process's own pools


@pytest.mark.parametrize(
    ("fault", "timeout_s", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", 120, "crashed: signal SIGSEGV"),
        ("os.kill(os.getpid(), signal.SIGKILL)", 120, "crashed: signal SIGKILL (memory ran out?)"),
        ("raise KeyError('no such operator')", 120, "not possible: KeyError: 'no such operator'"),
        ("os._exit(7)", 120, "failed: exporting torchscript-fp32"),
        ("time.sleep(300)", 1.5, "gave up after 1.5 s"),
    ],
    ids=["segmentation fault", "killed", "exception", "silent exit", "hang"],
)
def test_whatever_happens_to_a_candidate_is_the_reason_of_its_row(
    tiny_recipe: MakeRecipe, tmp_path: Path, fault: str, timeout_s: float, reason: str
) -> None:
    recipe = faulty_recipe(tiny_recipe(), fault)
    export_model(recipe, load_checkpoint(recipe), "eager", "fp32", tmp_path)
    trial = new_trial(recipe, tmp_path, ("torchscript", "fp32"), "cpu")
    row = run_trial(trial, timeout_s)
    assert (row.verdict, row.reason) == ("failed", reason)
    assert log_of(trial.folder).is_file()
    assert [path.name for path in trial.folder.parent.iterdir() if "torchscript" in path.name] == [
        "torchscript-fp32.log"
    ]
    assert own_python_processes() == []


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_in_the_middle_of_an_export_leaves_nothing_behind(tiny_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = faulty_recipe(tiny_recipe(), "time.sleep(300)")
    export_model(recipe, load_checkpoint(recipe), "eager", "fp32", tmp_path)
    trial = new_trial(recipe, tmp_path, ("torchscript", "fp32"), "cpu")

    def interrupt() -> None:
        wait_until(lambda: list(trial.folder.parent.glob(".torchscript-fp32-*")), timeout_s=100)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        run_trial(trial, 120)
    assert sorted(path.name for path in trial.folder.parent.iterdir()) == ["eager-fp32", "torchscript-fp32.log"]
    assert own_python_processes() == []


def test_candidates_are_made_from_the_reference_and_not_from_the_checkpoint_anew(
    tiny_recipe: MakeRecipe, tmp_path: Path
) -> None:
    path = tiny_recipe()
    recipe = read_recipe(path)
    export_model(recipe, load_checkpoint(recipe), "eager", "fp32", tmp_path)
    (path.parent / "labels.json").unlink()
    (path.parent / "tiny.py").write_text("raise SystemExit('edited while the build runs')")
    row = run_trial(new_trial(recipe, tmp_path, ("torchscript", "fp32"), "cpu"), 120)
    assert (row.verdict, row.reason) == ("verified", "")
    assert row.build_s
    assert row.size_mb
