"""Which settings are tried and what is concluded. tests/e2e/operations shows that servers are started and loaded."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from mar_tools.load_testing.measurement import Measurement
from mar_tools.load_testing.targets import Target
from mar_tools.serving.config_file import with_values
from mar_tools.serving.memory_bounds import read_bounds
from mar_tools.serving.temporary_server import own_places
from mar_tools.serving.torchserve_api import ServerError
from mar_tools.tuning import probe, tuner
from mar_tools.tuning.deployment import TunedModel, trial_properties, write_settings
from mar_tools.tuning.probe import Goal, WrongAnswersError, find_rate
from mar_tools.tuning.search import Attempt, Evaluate, Search
from mar_tools.tuning.space import Settings, Space, first_guesses, new_space
from mar_tools.tuning.tuner import Tuner
from vision_serving.worker.server_settings import read_model, read_properties

CURRENT = Settings(workers=1, threads=2, batch_size=8, max_batch_delay_ms=2)
TARGET = Target("model", "http://nowhere")
GOAL = Goal(p99_ms=100, trial_s=1.0)


def measured(p99_ms: float, failed: int = 0, wrong: int = 0) -> Measurement:
    return Measurement(100, failed, wrong, 1.0, 100.0, {"p50": p99_ms / 4, "p99": p99_ms})


# Space


def test_the_plans_of_two_cores_leave_no_core_idle_for_long() -> None:
    space = new_space(2, 0, 100, CURRENT)
    assert space.plans == ((1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (4, 1))
    assert space.batch_sizes == (1, 2, 4, 8, 16, 32)
    assert space.delays_ms == (1, 2, 5, 10, 20, 50)


def test_fewer_batch_sizes_and_delays_may_be_asked_for() -> None:
    space = new_space(2, 0, 100, CURRENT, batch_sizes=(1, 16), delays_ms=(1, 5))
    assert (space.batch_sizes, space.delays_ms) == ((1, 8, 16), (1, 2, 5))


def test_the_current_settings_are_always_a_choice() -> None:
    odd = Settings(workers=3, threads=5, batch_size=12, max_batch_delay_ms=77)
    space = new_space(2, 0, 10, odd)
    assert odd in space.settings()
    assert space.delays_ms == (1, 2, 5, 77)


def test_a_batch_of_one_waits_for_nobody() -> None:
    space = Space(cores=1, plans=((1, 1),), batch_sizes=(1, 2), delays_ms=(1, 5))
    assert [(s.batch_size, s.max_batch_delay_ms) for s in space.settings()] == [(1, 1), (2, 1), (2, 5)]


def test_on_a_gpu_threads_are_a_fair_share_and_batches_large() -> None:
    assert {(1, 16), (2, 8), (4, 4), (1, 2)} <= set(new_space(16, 1, 100, CURRENT).plans)
    space = new_space(16, 2, 100, CURRENT)
    assert {(2, 8), (4, 4), (1, 2)} <= set(space.plans)
    assert space.batch_sizes[-1] == 128


@pytest.mark.parametrize("gpus", [0, 1, 3])
def test_the_first_guesses_are_in_the_space(gpus: int) -> None:
    for cores in range(1, 129):
        space = new_space(cores, gpus, 100, CURRENT)
        assert set(first_guesses(space, CURRENT)) <= set(space.settings()), cores


def test_the_first_guesses_are_one_worker_and_a_worker_on_each_core() -> None:
    guesses = first_guesses(new_space(2, 0, 100, CURRENT), CURRENT)
    assert guesses == [CURRENT, Settings(1, 2, 8, 1), Settings(2, 1, 8, 1)]


# Probe


@pytest.fixture
def keeps_up_to(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], list[float]]:
    """An open loop whose p99 is 50 ms up to some rate and 500 ms beyond it; the rates that it was run with."""

    def install(limit: float) -> list[float]:
        rates: list[float] = []

        def run_open_loop(target: Target, requests: object, rate: float, *_: object, **__: object) -> Measurement:
            rates.append(rate)
            return measured(50 if rate <= limit else 500)

        monkeypatch.setattr(probe, "run_open_loop", run_open_loop)
        monkeypatch.setattr(tuner, "run_open_loop", run_open_loop)
        return rates

    return install


def test_the_highest_rate_that_keeps_the_latency_is_found_by_halves(
    keeps_up_to: Callable[[float], list[float]],
) -> None:
    rates = keeps_up_to(82)
    found = find_rate(TARGET, [], CURRENT, GOAL, capacity=100, to_beat=0)
    assert rates == [50, 75, 85, 80]
    assert found is not None
    assert (found.rate, found.measured.latency_ms["p99"]) == (80, 50)


def test_nobody_looks_closer_at_what_cannot_be_the_best(keeps_up_to: Callable[[float], list[float]]) -> None:
    rates = keeps_up_to(82)
    assert find_rate(TARGET, [], CURRENT, GOAL, capacity=100, to_beat=87) is None
    assert rates == [90]


def test_a_server_that_is_always_too_slow_has_no_rate(keeps_up_to: Callable[[float], list[float]]) -> None:
    keeps_up_to(0)
    found = find_rate(TARGET, [], CURRENT, GOAL, capacity=100, to_beat=0)
    assert found is not None
    assert found.rate == 0


@pytest.mark.parametrize("result", [measured(50, failed=1), Measurement(0, 0, 0, 1.0, 0.0, {})], ids=["lost", "none"])
def test_a_lost_request_is_late(result: Measurement) -> None:
    assert not probe.keeps(result, 100)


def test_wrong_answers_end_a_tuning() -> None:
    with pytest.raises(WrongAnswersError, match=r"2 of 100 answers were wrong with 1 worker x 2 threads, batch 8"):
        probe.refuse_wrong(measured(50, wrong=2), CURRENT)


# Search


def rate_of(settings: Settings) -> float:
    """Smooth, with one best: 2 workers x 1 thread, batch 4, delay 1 ms."""
    plan = {(1, 1): 60, (1, 2): 90, (2, 1): 100, (2, 2): 95, (3, 1): 92, (4, 1): 85}[settings.workers, settings.threads]
    return plan - abs(settings.batch_size.bit_length() - 3) * 6 - settings.max_batch_delay_ms / 2


def evaluate(settings: Settings, to_beat: float) -> Attempt:
    rate = rate_of(settings)
    return Attempt(settings=settings, rate=rate if rate > to_beat else None, capacity=1.1 * rate, to_beat=to_beat)


def open_search(folder: Path, key: str = "same") -> Search:
    return Search.open(folder / "model.journal", new_space(2, 0, 100, CURRENT), [key])


class Counted:
    """An evaluation that ends the search by an interrupt after so many settings."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.seen: list[Settings] = []

    def __call__(self, settings: Settings, to_beat: float) -> Attempt:
        if len(self.seen) == self.limit:
            raise KeyboardInterrupt
        self.seen.append(settings)
        return evaluate(settings, to_beat)


def run(search: Search, evaluation: Evaluate, guesses: Sequence[Settings] = ()) -> None:
    search.run(
        guesses or first_guesses(new_space(2, 0, 100, CURRENT), CURRENT), evaluation, float("inf"), lambda step: None
    )


def test_the_search_comes_close_to_the_best_in_a_fraction_of_the_trials(tmp_path: Path) -> None:
    search, counted = open_search(tmp_path), Counted(40)
    with pytest.raises(KeyboardInterrupt):
        run(search, counted)
    everything = search.space.settings()
    assert len(everything) == 186
    assert search.best is not None
    assert rate_of(search.best.settings) >= 0.95 * max(map(rate_of, everything))
    assert counted.seen[:3] == first_guesses(new_space(2, 0, 100, CURRENT), CURRENT)
    assert len(set(counted.seen)) == len(counted.seen), "nothing is tried twice"


def test_an_interrupted_search_goes_on_and_another_one_begins_anew(tmp_path: Path) -> None:
    first = Counted(5)
    with pytest.raises(KeyboardInterrupt):
        run(open_search(tmp_path), first)
    again, second = open_search(tmp_path), Counted(3)
    assert list(again.attempts) == first.seen
    assert again.best is not None
    with pytest.raises(KeyboardInterrupt):
        run(again, second)
    assert not set(first.seen) & set(second.seen)
    assert open_search(tmp_path, "another archive").attempts == {}


def test_a_trial_that_was_interrupted_or_did_not_start_is_tried_again(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(open_search(tmp_path), Counted(0))
    again = open_search(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run(again, Counted(1))
    assert list(again.attempts) == [CURRENT]

    def fail(settings: Settings, to_beat: float) -> Attempt:
        return Attempt(settings=settings, problem="the port was taken")

    failing = open_search(tmp_path, "failing")
    failing.run([CURRENT], fail, 0.0, lambda step: None)
    assert failing.attempts[CURRENT].problem
    assert open_search(tmp_path, "failing").attempts == {}


def test_a_search_ends_when_everything_is_known_or_the_time_is_over(tmp_path: Path) -> None:
    space = Space(cores=1, plans=((1, 1),), batch_sizes=(1, 2), delays_ms=(1,))
    search = Search.open(tmp_path / "small.journal", space, [])
    run(search, evaluate, space.settings())
    assert set(search.attempts) == set(space.settings())
    late = open_search(tmp_path)
    late.run(first_guesses(late.space, CURRENT), evaluate, 0.0, lambda step: None)
    assert list(late.attempts) == [CURRENT], "which the decision needs"


# Decision


@pytest.fixture
def tuned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Tuner:
    """One whose servers are only named; `unstartable` fails to start."""

    @contextmanager
    def serve_trial(candidate: TunedModel, settings: Settings) -> Iterator[Target]:
        if settings.workers == 4:
            raise ServerError("no memory")
        yield Target(str(settings), "http://nowhere")

    monkeypatch.setattr(tuner, "serve_trial", serve_trial)
    monkeypatch.setattr(tuner, "measure_capacity", lambda target, requests, settings, duration_s: 100.0)
    return Tuner(TunedModel(tmp_path / "m.mar", "m", "1.0", ""), [], GOAL)


def test_what_does_not_start_is_a_finding(tuned: Tuner) -> None:
    attempt = tuned.evaluate(Settings(4, 1, 8, 2), 0.0)
    assert (attempt.rate, attempt.problem, attempt.score) == (None, "no memory", 0.0)


def found_search(tmp_path: Path, best_rate: float) -> tuple[Search, Settings]:
    search, best = open_search(tmp_path), Settings(2, 1, 4, 1)
    search.attempts[CURRENT] = Attempt(settings=CURRENT, rate=80.0, capacity=100.0)
    search.attempts[best] = Attempt(settings=best, rate=best_rate, capacity=120.0)
    return search, best


def test_the_best_is_chosen_where_the_current_settings_cannot_keep_up(
    tuned: Tuner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = {str(CURRENT): 82.0, str(Settings(2, 1, 4, 1)): 96.0}

    def run_open_loop(target: Target, requests: object, rate: float, *_: object, **__: object) -> Measurement:
        return measured(50 if rate <= limits[target.name] else 500)

    monkeypatch.setattr(tuner, "run_open_loop", run_open_loop)
    search, best = found_search(tmp_path, best_rate=100.0)
    decision = tuned.decide(search, CURRENT, lambda step: None)
    assert decision is not None
    assert (decision.requests_per_s, decision.chosen.settings) == (95.0, best)
    assert decision.former is not None
    assert (decision.chosen.p99_ms, decision.former.p99_ms, decision.former_requests_per_s) == (50, 500, 80.0)


def test_current_settings_that_do_not_start_are_beaten(
    tuned: Tuner, tmp_path: Path, keeps_up_to: Callable[[float], list[float]]
) -> None:
    keeps_up_to(1000)
    search, heavy = found_search(tmp_path, best_rate=100.0)[0], Settings(4, 1, 8, 2)
    search.attempts[heavy] = tuned.evaluate(heavy, 0.0)
    decision = tuned.decide(search, heavy, lambda step: None)
    assert decision is not None
    assert decision.former is None


@pytest.mark.parametrize("best_rate", [81.0, 100.0], ids=["hardly more", "more, but the current ones keep up"])
def test_without_a_clear_gain_nothing_is_better(
    tuned: Tuner, tmp_path: Path, best_rate: float, keeps_up_to: Callable[[float], list[float]]
) -> None:
    keeps_up_to(1000)
    assert tuned.decide(found_search(tmp_path, best_rate)[0], CURRENT, lambda step: None) is None


def test_after_a_lucky_trial_the_next_best_is_compared(
    tuned: Tuner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search, _ = found_search(tmp_path, best_rate=100.0)
    solid = Settings(2, 2, 4, 1)
    search.attempts[solid] = Attempt(settings=solid, rate=90.0, capacity=110.0)

    def run_open_loop(target: Target, requests: object, rate: float, *_: object, **__: object) -> Measurement:
        return measured(50 if target.name == str(solid) else 500)

    monkeypatch.setattr(tuner, "run_open_loop", run_open_loop)
    decision = tuned.decide(search, CURRENT, lambda step: None)
    assert decision is not None
    assert (decision.chosen.settings, decision.requests_per_s) == (solid, 90.0)


def test_nothing_is_decided_where_nothing_keeps_the_latency(
    tuned: Tuner, tmp_path: Path, keeps_up_to: Callable[[float], list[float]]
) -> None:
    keeps_up_to(0)
    assert tuned.decide(found_search(tmp_path, 100.0)[0], CURRENT, lambda step: None) is None


def test_a_trial_serves_one_archive_elsewhere(tmp_path: Path) -> None:
    text = "inference_address=http://0.0.0.0:8080\nmodel_store=/srv/models\nvmargs=-Xmx1g\nload_models=all\n"
    candidate = TunedModel(tmp_path / "m.mar", "m", "1.0", text)
    values = read_properties(with_values(trial_properties(candidate, CURRENT), own_places()))
    assert values["inference_address"].startswith("http://127.0.0.1:")
    addresses = [value for key, value in values.items() if key.endswith(("address", "port"))]
    assert len(set(addresses)) == len(addresses) - 1, "two gRPC addresses, five ports"
    assert all("127.0.0.1" in value or value.isdigit() for value in addresses)
    assert (values["model_store"], values["load_models"], values["vmargs"]) == ("model_store", "m.mar", "-Xmx1g")
    section = read_model(trial_properties(candidate, CURRENT), "m")["1.0"]
    assert section == {"defaultVersion": True, "marName": "m.mar", **CURRENT.as_properties()}


@pytest.mark.parametrize(("heap", "waiting"), [("2g", "700"), ("512m", "256")])
def test_no_more_requests_wait_in_a_trial_than_its_heap_holds(heap: str, waiting: str, tmp_path: Path) -> None:
    candidate = TunedModel(tmp_path / "m.mar", "m", "1.0", f"vmargs=-Xmx{heap}\nmax_request_size=1000000\n")
    values = read_properties(trial_properties(candidate, CURRENT))
    assert values["job_queue_size"] == waiting
    read_bounds(values)


def test_the_winner_is_written_into_the_file_that_a_link_names(tmp_path: Path) -> None:
    real, link = tmp_path / "real.properties", tmp_path / "config.properties"
    real.write_bytes(b"a=1\r\nmodels={}\r\n# end\r\n")
    real.chmod(0o600)
    link.symlink_to(real)
    write_settings(link, TunedModel(tmp_path / "m.mar", "m", "1.0", ""), CURRENT)
    lines = real.read_bytes().split(b"\r\n")
    assert (lines[0], lines[-2], lines[-1]) == (b"a=1", b"# end", b"")
    section = read_model(real.read_text(), "m")["1.0"]
    assert section == {"defaultVersion": True, "marName": "m.mar", **CURRENT.as_properties()}
    assert (link.is_symlink(), real.stat().st_mode & 0o777) == (True, 0o600)
