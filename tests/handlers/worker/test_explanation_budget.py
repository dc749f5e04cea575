"""Explanations take no more than their share of a worker's time, whatever is queued."""

from pathlib import Path
from typing import Any

import orjson
import pytest
from conftest import MakeHandler
from fakes import RED, new_context, png
from torch import Tensor

from vision_serving.errors import ExplanationsBusyError
from vision_serving.worker.explanation_budget import BURST_S, ExplanationBudget
from vision_serving.worker.service import TorchServeHandler

EXPLAIN = {"explain": "True"}


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("vision_serving.worker.explanation_budget.time.monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def spend(budget: ExplanationBudget, clock: Clock, seconds: float) -> ExplanationsBusyError | None:
    with budget.spend() as refusal:
        clock.now += 0 if refusal else seconds
    return refusal


def count_explained(budget: ExplanationBudget, clock: Clock, queued: int, seconds: float) -> int:
    return sum(spend(budget, clock, seconds) is None for _ in range(queued))


@pytest.mark.parametrize("seconds", [0.01, 0.3, 1.5, 30.0])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_prediction_behind_any_queue_waits_for_one_explanation_and_a_burst(
    clock: Clock, share: float, seconds: float
) -> None:
    budget, begun = ExplanationBudget(share), clock.now
    count_explained(budget, clock, 10_000, seconds)
    assert clock.now - begun <= seconds + BURST_S / (1 - share) + 1e-6


@pytest.mark.parametrize("seconds", [0.01, 2.0])
def test_over_time_explanations_get_their_share(clock: Clock, seconds: float) -> None:
    budget, begun, explaining = ExplanationBudget(0.25), clock.now, 0.0
    while clock.now < begun + 1000:
        explaining += seconds * (spend(budget, clock, seconds) is None)
        clock.now += 0.005  # what is refused, or a prediction
    assert explaining == pytest.approx(250, rel=0.02)


def test_a_refusal_says_when_it_is_worth_asking_again(clock: Clock) -> None:
    budget = ExplanationBudget(0.5)
    assert spend(budget, clock, 8) is None
    refusal = spend(budget, clock, 8)
    assert isinstance(refusal, ExplanationsBusyError)
    assert refusal.retry_after_s == 7  # 0.5 s were there, 4 came back meanwhile: 3.5 s are lacking
    clock.now += refusal.retry_after_s
    assert spend(budget, clock, 8) is None


def test_a_worker_that_did_not_explain_saves_no_more_than_a_burst(clock: Clock) -> None:
    budget = ExplanationBudget(0.5)
    clock.now += 3600
    assert count_explained(budget, clock, 100, 0.1) == 10  # each takes back half of what it took


def test_with_a_share_of_all_nothing_is_refused(clock: Clock) -> None:
    budget = ExplanationBudget(1)
    assert count_explained(budget, clock, 1000, 7.3) == 1000


def test_in_a_batch_what_is_over_the_budget_is_503_at_once(
    make_handler: MakeHandler, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = make_handler("classification")
    handler.budget = ExplanationBudget(0.5)
    explain = handler.explain

    def explain_slowly(*arguments: Any) -> Any:
        clock.now += 2.0
        return explain(*arguments)

    monkeypatch.setattr(handler, "explain", explain_slowly)
    found = answer(handler, [EXPLAIN, EXPLAIN, EXPLAIN])
    assert [status for status, *_ in found] == [200, 503, 503]
    busy = found[1][1]
    assert (busy["type"], busy["code"]) == ("ExplanationsBusyError", 503)
    assert found[1][2] == "1"


@pytest.mark.parametrize(("share", "status"), [(0.5, 503), (1, 200)])
def test_a_prediction_does_not_wait_for_an_explanation_of_its_own_batch(
    make_handler: MakeHandler, monkeypatch: pytest.MonkeyPatch, share: float, status: int
) -> None:
    handler = make_handler("classification")
    handler.budget = ExplanationBudget(share)
    infer, asked = handler.backend.infer, list[int]()

    def count(pixels: Tensor) -> dict[str, Tensor]:
        asked.append(len(pixels))
        return infer(pixels)

    monkeypatch.setattr(handler.backend, "infer", count)
    found = answer(handler, [EXPLAIN, {}, EXPLAIN])
    assert [found_status for found_status, *_ in found] == [status, 200, status]
    if status == 503:
        assert asked == [1], "the prediction's inference, and no other"
        assert found[0][1]["type"] == "ExplanationsBusyError"
        assert "predictions came in the same batch" in found[0][1]["message"]
        assert found[0][2] == "1"


def answer(handler: TorchServeHandler, headers: list[dict[str, str]]) -> list[tuple[int, Any, str | None]]:
    """Return status, body and `Retry-After` of each request."""
    context = new_context(Path(), headers)
    bodies = handler.handle([{"body": png(RED)}] * len(headers), context)
    return [
        (
            context.get_response_status(index)[0],
            orjson.loads(body),
            context.get_response_headers(index).get("Retry-After"),
        )
        for index, body in enumerate(bodies)
    ]
