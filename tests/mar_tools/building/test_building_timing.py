import time
from pathlib import Path

import pytest
from conftest import MakeRecipe, TinyModel
from fakes import TINY_CLASSIFIER

from mar_tools.building.timing import Round, Timing, TimingPlan, contenders, group_by_memory, speedup, time_exports
from mar_tools.building.timing_process import answer_batch, measure_round, split_batches
from mar_tools.exporting.export import export_model
from mar_tools.images import choose_images
from mar_tools.models.checkpoints import load_checkpoint
from mar_tools.models.recipes import read_recipe
from mar_tools.verification.observations import load_handler
from vision_serving.errors import VisionServingError
from vision_serving.requests.payload import Payload

GB = 1e9
A, B, C, D = (Path(name) for name in "abcd")


@pytest.mark.parametrize(
    ("gigabytes", "memory_gb", "groups"),
    [
        ({A: 0.1}, 16, [[A]]),
        ({A: 0.1, B: 0.1, C: 0.1, D: 0.1}, 16, [[A, B, C, D]]),
        ({A: 1, B: 1, C: 0.5, D: 0.1}, 14, [[A, B, C], [A, D]]),
        ({A: 2, B: 2, C: 2, D: 2}, 8, [[A, B], [A, C], [A, D]]),
    ],
    ids=["the baseline alone", "all at once", "as many as fit", "in pairs where even those are too large"],
)
def test_exports_are_timed_in_groups_that_fit_into_half_the_memory(
    gigabytes: dict[Path, float], memory_gb: float, groups: list[list[Path]]
) -> None:
    sizes = {folder: size * GB for folder, size in gigabytes.items()}
    assert group_by_memory(sizes, A, memory_gb * GB) == groups


def test_a_speedup_is_that_of_the_medians_at_a_batch_size() -> None:
    baseline = Timing(rates={1: [1.0], 8: [10.0, 5.0, 10.0]})
    assert speedup(Timing(rates={1: [9.0], 8: [20.0, 10.0, 29.0]}), baseline, 8) == 2.0
    assert speedup(Timing(rates={8: [20.0]}, problem="crashed"), baseline, 8) is None


def test_figures_are_medians_and_a_lost_export_has_none() -> None:
    rates = {1: [3.0, 1.0, 2.0], 8: [1234.567]}
    assert Timing(rates=rates).images_per_s() == {"1": 2.0, "8": 1235.0}
    assert Timing(rates=rates, problem="gave up").images_per_s() == {}


@pytest.mark.parametrize(
    ("batch_size", "batches"), [(1, ["a", "b", "c"]), (2, ["ab", "ca"]), (3, ["abc"]), (5, ["abcab"])]
)
def test_every_pass_is_over_all_images_in_full_batches(batch_size: int, batches: list[str]) -> None:
    payloads = [Payload(images=(name.encode(),)) for name in "abc"]
    found = [[payload.images[0] for payload in batch] for batch in split_batches(payloads, batch_size)]
    assert found == [[letter.encode() for letter in batch] for batch in batches]


def test_a_rate_counts_the_images_of_the_median_pass(
    tiny_classifier: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = load_handler(tiny_classifier.folders["eager"])
    payloads = [Payload(images=(path.read_bytes(),)) for path in choose_images(None, 2)]
    started = time.perf_counter()
    rate = measure_round(handler, payloads, Round(batch_size=1, duration_s=0.05))
    assert rate > 2 / (time.perf_counter() - started)


def test_an_answer_that_is_no_prediction_is_not_timed(
    tiny_classifier: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = load_handler(tiny_classifier.folders["eager"])
    with pytest.raises(VisionServingError, match="answered 400 to an image"):
        answer_batch(handler, [Payload(images=(b"not an image",))])
    monkeypatch.setattr(handler.backend, "infer", lambda pixels: 1 / 0)
    with pytest.raises(VisionServingError, match="answered 500 to an image"):
        answer_batch(handler, [Payload(images=(choose_images(None, 1)[0].read_bytes(),))])


def test_who_is_far_behind_or_lost_gets_no_further_round_but_for_the_baseline() -> None:
    timings = {A: Timing(), B: Timing(), C: Timing(), D: Timing(problem="crashed")}
    assert contenders(timings, A, 8) == [A, B, C]  # nobody has run yet
    for folder, rates in {A: [10.0], B: [100.0, 60.0], C: [39.0, 41.0, 38.0]}.items():
        timings[folder].rates = {1: [1.0], 8: rates}
    assert contenders(timings, A, 8) == [A, B]
    timings[C].rates[8] = [40.0]
    assert contenders(timings, A, 8) == [A, B, C]


def plan(batch_sizes: tuple[int, ...], steps: list[str]) -> TimingPlan:
    def skip(turns: int) -> None:
        steps.extend(["skipped"] * turns)

    return TimingPlan(tuple(choose_images(None, 2)), batch_sizes, 2, 0.0, 120, announce=steps.append, skip=skip)


def test_exports_take_turns_and_one_that_crashes_does_not_end_the_others(
    tiny_recipe: MakeRecipe, tmp_path: Path
) -> None:
    """The baseline prints as it pleases; the other one crashes with batches of 3."""
    path, folders = tiny_recipe(), []
    for number, line in enumerate(("print('noise')", "len(images) == 3 and os.kill(os.getpid(), signal.SIGSEGV)")):
        source = TINY_CLASSIFIER.replace("return self.head", f"import os, signal; {line}\n        return self.head")
        (path.parent / "tiny.py").write_text(source)
        recipe = read_recipe(path)
        folders.append(export_model(recipe, load_checkpoint(recipe), "eager", "fp32", tmp_path / str(number)))
    steps: list[str] = []
    timings = time_exports(dict.fromkeys(folders, 1e6), folders[0], plan((1, 3), steps), 16 * GB)
    steady, crashing = (timings[folder] for folder in folders)
    assert (steady.problem, steady.speedup) == ("", 1.0)
    assert {size: len(rates) for size, rates in steady.rates.items()} == {1: 2, 3: 2}
    assert steady.load_s is not None
    assert (crashing.problem, crashing.speedup, crashing.rates) == ("crashed: signal SIGSEGV", None, {})
    assert steps == ["load eager-fp32"] * 2 + ["skipped", "time eager-fp32"] * 2
    assert "noise" in (folders[0].parent / "eager-fp32.log").read_text()


def test_the_model_is_timed_where_requests_with_such_images_are_refused(
    tiny_recipe: MakeRecipe, tmp_path: Path
) -> None:
    path = tiny_recipe(limits={"formats": ["PNG"]})
    source = TINY_CLASSIFIER.replace("return self.head", "print('a batch of', len(images))\n        return self.head")
    (path.parent / "tiny.py").write_text(source)
    recipe = read_recipe(path)
    folder = export_model(recipe, load_checkpoint(recipe), "eager", "fp32", tmp_path)
    time_exports({folder: 1e6}, folder, plan((2,), []), 16 * GB)
    assert "a batch of 2" in (folder.parent / "eager-fp32.log").read_text()
