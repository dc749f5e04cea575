"""The zoo sweep: what is planned, what a process costs that crashes or hangs, what is kept, and the page."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import MakeRecipe
from fakes import TINY_CLASSIFIER
from sweep_rows import RUN, new_row

from lab import sweep_zoo
from lab.pages.rendering import render_page
from lab.sweeping.coverage import PRECISIONS, Coverage, CoverageRow, RowOutcome, read_coverage, write_coverage
from lab.sweeping.execution import Limits, describe_trial, record_row, sweep, sweep_model
from lab.sweeping.plan import NOT_OFFERED, Again, Selection, SweepTask, list_passes, make_plan, offered_precisions
from lab.sweeping.zoo import ZooModel, list_zoo
from mar_tools.building.trial_process import describe_problem
from mar_tools.building.trials import TrialRun, new_trial
from mar_tools.child_processes import Finished
from mar_tools.command_line import ROOT
from mar_tools.exporting.exporters import list_candidates
from mar_tools.models.recipes import Recipe, read_recipe
from vision_serving.errors import BackendError, ConfigError

SMALL = ZooModel(group="classification", name="squeezenet1_1")


def coverage_of(*rows: CoverageRow) -> Coverage:
    coverage = Coverage()
    for row in rows:
        coverage = coverage.with_row(row, RUN)
    return coverage


# The zoo and the plan.


def test_the_zoo_has_every_builder_of_torchvision_and_many_families_of_timm() -> None:
    names = {(model.group, model.name) for model in list_zoo()}
    assert {("classification", "vit_h_14"), ("detection", "maskrcnn_resnet50_fpn"), ("timm", "levit_128s")} <= names
    counts = [sum(group == wanted for group, _ in names) for wanted in ("classification", "timm", "detection")]
    assert counts[0] >= 80
    assert counts[1] >= 15
    assert counts[2] >= 12
    assert not [name for _, name in names if name.startswith("quantized_")]


@pytest.mark.parametrize("model", list_zoo(), ids=lambda model: model.name)
def test_every_model_of_the_zoo_has_a_recipe_with_random_weights(model: ZooModel) -> None:
    recipe = model.recipe()
    assert recipe.model.weights == "random"
    assert recipe.task == ("detection" if model.group == "detection" else "classification")


def test_every_timm_model_is_one_of_timm() -> None:
    timm = pytest.importorskip("timm")
    assert [model.name for model in list_zoo() if model.group == "timm" and not timm.is_model(model.name)] == []


def test_every_candidate_of_a_cpu_is_in_exactly_one_pass() -> None:
    swept = [(b, p) for backends in list_passes() for b in backends for p in offered_precisions(b)]
    assert sorted(swept) == sorted(pair for pair in list_candidates("cpu") if pair[1] in PRECISIONS)


def test_a_reason_is_stated_for_every_pair_that_is_not_offered() -> None:
    backends = {backend for backend, _ in list_candidates("cpu")}
    missing = {(b, p) for b in backends for p in PRECISIONS if (b, p) not in list_candidates("cpu")}
    assert missing == set(NOT_OFFERED)


def test_a_backend_that_no_pass_names_is_in_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    offered = [*list_candidates("cpu"), ("new", "fp32")]
    monkeypatch.setattr("lab.sweeping.plan.list_candidates", lambda device_type: offered)
    assert "new" in list_passes()[-1]
    [[task]] = make_plan([SMALL], Selection(backends=["new"]), Coverage())
    assert task.precisions == ("fp32",)


def planned(selection: Selection, coverage: Coverage) -> list[str]:
    plan = make_plan([SMALL], selection, coverage)
    return [f"{task.backend}-{p}" for tasks in plan for task in tasks for p in task.precisions]


@pytest.mark.parametrize(
    ("again", "left"),
    [
        ("nothing", ["openvino-int8"]),
        ("failed", ["openvino-bf16", "openvino-int8"]),
        ("all", ["openvino-fp32", "openvino-bf16", "openvino-int8"]),
    ],
)
def test_known_rows_are_done_again_only_when_asked_for(again: Again, left: list[str]) -> None:
    coverage = coverage_of(new_row(), new_row(precision="bf16", status="rejected"))
    assert planned(Selection(backends=["openvino"], again=again), coverage) == left


def test_a_plan_goes_through_all_models_before_the_next_pass() -> None:
    models = [SMALL, ZooModel(group="timm", name="levit_128s")]
    plan = make_plan(models, Selection(backends=["openvino", "aotinductor"], precisions=["fp32"]), Coverage())
    assert [tasks[0].model.name for tasks in plan] == ["squeezenet1_1", "levit_128s"] * 2
    assert [task.backend for task in plan[2]] == ["aotinductor"]


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (Selection(models=["resnet51"]), "no model of the zoo is called 'resnet51'"),
        (Selection(backends=["openvin"]), "unknown backend 'openvin'"),
    ],
)
def test_what_does_not_exist_is_refused(selection: Selection, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_plan(list_zoo(), selection, Coverage())


def test_patterns_choose_models_and_groups() -> None:
    plan = make_plan(list_zoo(), Selection(models=["vgg1?", "detection/ssd*"], backends=["eager"]), Coverage())
    assert {tasks[0].model.name for tasks in plan} == {
        "vgg11",
        "vgg13",
        "vgg16",
        "vgg19",
        "ssd300_vgg16",
        "ssdlite320_mobilenet_v3_large",
    }


# Processes.


class FaultyModel(ZooModel):
    """The tiny classifier with a line that runs only where it is traced, as for openvino and torchscript."""

    path: Path

    def recipe(self) -> Recipe:
        return read_recipe(self.path)


def faulty_model(path: Path, fault: str) -> FaultyModel:
    traced = f"import os, time, torch\n        if torch.jit.is_tracing():\n            {fault}\n        "
    (path.parent / "tiny.py").write_text(TINY_CLASSIFIER.replace("return self.head", f"{traced}return self.head"))
    return FaultyModel(group="classification", name="tiny_classification", path=path)


@pytest.mark.parametrize(
    ("fault", "limits", "status", "reason"),
    [
        ("os.abort()", Limits(), "crashed", "signal SIGABRT"),
        ("os._exit(0)", Limits(), "crashed", "failed: ended without a result"),
        ("raise ValueError('no such kernel')", Limits(), "failed", "ValueError: no such kernel"),
        ("time.sleep(300)", Limits(timeout_s=60), "timed out", "gave up after 60 s"),
        (
            "x = bytearray(3 * 2**30); time.sleep(300)",
            Limits(memory_gib=2.5),
            "crashed",
            "stopped at 2.5 GiB of memory",
        ),
    ],
    ids=["signal", "silent end", "exception", "hang", "memory"],
)
def test_a_process_that_fails_loses_its_own_row_and_no_other(
    tiny_recipe: MakeRecipe, tmp_path: Path, fault: str, limits: Limits, status: str, reason: str
) -> None:
    model = faulty_model(tiny_recipe(), fault)
    tasks = [SweepTask(model, "torchscript", ("fp32",)), SweepTask(model, "eager", ("fp32",))]
    rows = {row.backend: row for row in sweep_model(tasks, tmp_path, limits)}
    assert (rows["torchscript"].status, rows["torchscript"].reason) == (status, reason)
    assert rows["eager"].status == "verified"
    assert rows["eager"].ms
    assert [folder.name for folder in (tmp_path / model.name).glob("*/")] == ["eager-fp32"]


def test_a_missing_reference_is_the_reason_of_every_row(tmp_path: Path) -> None:
    broken = ZooModel(group="timm", name="no_such_model")
    tasks = [SweepTask(broken, "openvino", ("fp32", "int8"))]
    rows = list(sweep_model(tasks, tmp_path, Limits()))
    assert [(row.backend, row.precision, row.status) for row in rows] == [
        ("openvino", "fp32", "not supported"),
        ("openvino", "int8", "not supported"),
    ]
    assert all((row.reason or "").startswith("no eager fp32 reference: unknown timm model") for row in rows)


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (BackendError("no such\n  scheme"), RowOutcome(status="not supported", reason="no such scheme")),
        (caused(BackendError("cannot"), KeyError("x")), RowOutcome(status="failed", reason="cannot")),
        (ValueError("\nfirst\nsecond"), RowOutcome(status="failed", reason="ValueError: first")),
        (
            caused(RuntimeError("step 1"), KeyError("x")),
            RowOutcome(status="failed", reason="RuntimeError, KeyError: 'x'"),
        ),
        (ValueError("y" * 500), RowOutcome(status="failed", reason="ValueError: " + "y" * 227 + "…")),
    ],
    ids=["ours", "ours with a cause", "foreign", "with a cause", "long"],
)
def test_an_error_becomes_a_short_reason(error: Exception, outcome: RowOutcome) -> None:
    trial = new_trial(SMALL.recipe(), Path(), ("openvino", "fp32"), "cpu")
    run = TrialRun(Finished("", 1.0), describe_problem(error))
    assert describe_trial(trial, run) == outcome


# What is kept.


def test_rows_are_kept_one_a_line_in_one_order_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    rows = [new_row("openvino"), new_row("eager", "bf16"), new_row("eager"), new_row("eager", model="alexnet")]
    for order in (rows, rows[::-1]):
        write_coverage(coverage_of(*order), path)
        lines = [line for line in path.read_text().splitlines() if "snr_db" in line]
        assert [line.split('"model":"')[1].split('"')[0] for line in lines] == ["alexnet"] + 3 * ["squeezenet1_1"]
        assert len(lines) == len(rows)
    assert {row.key for row in read_coverage(path).rows} == {row.key for row in rows}


def test_a_row_takes_the_place_of_its_older_one_and_of_the_run_that_nothing_came_from(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    record_row(new_row(status="rejected"), path, RUN)
    record_row(new_row(), path, RUN.model_copy(update={"cpu": "another"}))
    coverage = read_coverage(path)
    assert [row.status for row in coverage.rows] == ["verified"]
    assert [run.cpu for run in coverage.runs] == ["another"]
    assert coverage.rows[0].run == coverage.runs[0].id


def test_runs_of_the_same_day_machine_and_versions_are_one() -> None:
    coverage = coverage_of(new_row(), new_row("eager"))
    assert len(coverage.runs) == 1


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"rows": [')
    with pytest.raises(ConfigError, match=r"c\.json: not a readable JSON file"):
        read_coverage(tmp_path / "c.json")


# Together.


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("sweep") / "compatibility.json"
    task = SweepTask(SMALL, "openvino", ("fp32",))
    list(sweep([[SweepTask(SMALL, "eager", ("fp32",)), task]], output, RUN, Limits()))
    return output


def test_a_small_model_is_verified_and_timed_on_two_backends(swept: Path) -> None:
    rows = {row.backend: row for row in read_coverage(swept).rows}
    assert {backend: row.status for backend, row in rows.items()} == {"eager": "verified", "openvino": "verified"}
    assert rows["eager"].snr_db == 200
    assert 60 <= (rows["openvino"].snr_db or 0) < 200
    assert all((row.ms or 0) > 0 and row.peak_gib > 0 for row in rows.values())


def test_a_sweep_goes_on_where_it_was_stopped(swept: Path) -> None:
    command = [sys.executable, str(ROOT / "lab" / "sweep_zoo.py"), "--output", str(swept), "--list"]
    selection = ["--models", SMALL.name, "--backends", "openvino", "eager"]
    finished = subprocess.run([*command, *selection], capture_output=True, text=True, check=True)
    left = len(offered_precisions("openvino")) + len(offered_precisions("eager")) - 2
    assert finished.stdout.splitlines() == [f"classification/{SMALL.name}: {left}", f"{left} rows left of 1 models"]


def test_the_command_writes_the_page_of_the_rows_that_are_there(swept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = ["--models", SMALL.name, "--backends", "openvino", "--precisions", "fp32"]
    monkeypatch.setattr(sys, "argv", ["sweep_zoo.py", "--output", str(swept), *known])
    sweep_zoo.main()
    assert swept.with_suffix(".md").read_text(encoding="utf-8") == render_page("compatibility", swept)


def test_the_page_of_a_sweep_without_rows_says_so(tmp_path: Path) -> None:
    assert "0 of 0 combinations" in render_page("compatibility", tmp_path / "compatibility.json")
