"""The command, its tables and its pictures."""

from pathlib import Path

import pytest
from conftest import RunHere
from rich.console import Console

from mar_tools.load_testing.measurement import LATENCIES, Measurement
from mar_tools.load_testing.plots import REST, plot_results, plot_servers, stage_ms
from mar_tools.load_testing.reporting import describe_run, result_table, stage_table
from mar_tools.load_testing.served import prepare_checked_requests
from mar_tools.load_testing.trials import Load, LoadKind, LoadResult
from vision_serving.cores import plan_threads


def result(
    target: str, kind: LoadKind, amount: float, rate: float, stages: dict[str, float] | None = None
) -> LoadResult:
    latencies = dict(zip(LATENCIES, (10.0, 12.0, 13.0, 20.0, 25.0, 11.0), strict=True))
    measurement = Measurement(100, 3, 2, 10.0, rate, latencies, 4.0, stages or {}, 21.5, 700.0, 690.0, 650.0)
    return LoadResult(target, Load(kind, amount), (measurement, measurement))


RESULTS = [
    result("resnet50", "closed", 1, 60.0, {"decode": 1.5, "inference": 8.0}),
    result("resnet50", "closed", 8, 80.0, {"decode": 2.5, "inference": 9.0}),
    result("resnet50", "open", 56, 56.0, {"decode": 1.5, "inference": 8.0}),
    result("resnet50 (P)", "in_process", 8, 90.0, {"decode": 1.5, "inference": 8.0}),
    result("resnet50_stock", "closed", 8, 10.0),
]
MODELS = ["resnet50"]


def rendered(table: object) -> str:
    console = Console(width=140)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_the_table_has_a_line_for_each_load_and_says_what_was_not_checked() -> None:
    lines = rendered(result_table(RESULTS, unchecked=["resnet50_stock"])).splitlines()
    (eight,) = (line.split() for line in lines if "resnet50 " in line and "8 conn." in line)
    assert eight == ["resnet50", "8", "conn.", "80", "80", "-", "80", "10", "20", "6", "4", "21.5", "650"]
    (stock,) = (line.split() for line in lines if "resnet50_stock" in line)
    assert stock[-3] == "?"


def test_the_stages_are_those_that_servers_told() -> None:
    text = rendered(stage_table(RESULTS))
    assert text.split()[:6] == ["decode", "inference", "latency", "target", "load", "batch"]
    assert "resnet50_stock" not in text
    assert stage_table(RESULTS[-1:]) is None


def test_pictures_are_png_and_svg_and_name_their_curves(tmp_path: Path) -> None:
    files = plot_results(RESULTS, MODELS, tmp_path / "plots")
    assert [path.name for path in files] == [
        f"{name}.{suffix}" for name in ("throughput_latency", "stages") for suffix in ("png", "svg")
    ]
    curves, stages = (files[number].read_text() for number in (1, 3))
    assert all(
        name in curves
        for name in ("this project, closed loop", "this project, open loop", "resnet50_stock", "(P), batch 8")
    )
    assert all(name in stages for name in ("decode", "inference", REST, "resnet50 (P)"))
    assert files[0].read_bytes().startswith(b"\x89PNG")


def test_pictures_of_the_same_results_are_the_same(tmp_path: Path) -> None:
    first, second = (plot_results(RESULTS, MODELS, tmp_path / name) for name in "ab")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_without_stages_several_loads_or_answers_there_is_less_to_draw(tmp_path: Path) -> None:
    assert [path.stem for path in plot_results(RESULTS[:1], MODELS, tmp_path)] == ["stages", "stages"]
    assert plot_results(RESULTS[-1:], MODELS, tmp_path) == []
    nothing = Measurement(5, 5, 0, 1.0, 0.0, {})
    assert plot_results([LoadResult("down", Load("closed", 1), (nothing,))], ["down"], tmp_path) == []


def test_the_rest_of_a_latency_is_what_no_stage_accounts_for() -> None:
    assert stage_ms(RESULTS[0], REST) == 11.0 - 9.5
    assert stage_ms(RESULTS[1], REST) == 0.0, "stages of a batch may overlap the wait of others"


def test_a_document_says_where_when_and_how() -> None:
    document = describe_run(client="bundled")
    assert document.keys() >= {"date", "command", "machine", "versions", "client"}
    assert document["machine"]["cores"] >= 1
    assert document["versions"].keys() >= {"python", "torch", "aiohttp"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give the names of served models"),
        (("digits", "--rates", "fast"), "expected requests/s such as 80, or a share such as 70%, got 'fast'"),
        (("digits", "--connections", "0"), "expected a whole number from 1, got '0'"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(run_here: RunHere, arguments: tuple[str, ...], message: str) -> None:
    finished = run_here("benchmark_model.py", *arguments)
    assert finished.returncode == 2
    assert message in finished.stderr


@pytest.mark.parametrize("known", [False, True], ids=["no archive", "not ours"])
def test_what_nobody_knows_the_answers_of_is_not_checked_and_says_why(known: bool, tmp_path: Path) -> None:
    requests, reason = prepare_checked_requests(tmp_path if known else None, [b"image"], plan_threads(1, 1))
    assert requests[0].expected is None
    assert ("model-config.yaml" if known else "not in the model store") in reason


def test_servers_are_drawn_side_by_side_under_one_load_and_p_as_a_line() -> None:
    assert plot_servers(RESULTS, MODELS) is None, "two loads"
    assert plot_servers(RESULTS[1:4], MODELS) is None, "one server"
    figure = plot_servers(RESULTS[1:], MODELS)
    assert figure is not None
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["resnet50_stock", "this project"]
    (line,) = (line for line in axes.lines if "(P)" in str(line.get_label()))
    assert line.get_xdata() == [90.0, 90.0]


def test_several_models_of_ours_keep_their_names() -> None:
    figure = plot_servers(RESULTS[1:], ["resnet50", "resnet50_stock"])
    assert figure is not None
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["resnet50_stock", "resnet50"]


def test_a_logarithmic_axis_has_decimal_ticks(tmp_path: Path) -> None:
    files = plot_results(RESULTS, MODELS, tmp_path)
    assert "mathdefault" not in files[1].read_text(), "10^2"
