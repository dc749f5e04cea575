"""Which settings are tried, in what order, and what each gave: Optuna's TPE, which goes on from its journal."""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import Trial, TrialState

from mar_tools.tuning.space import Settings, Space
from vision_serving.config import StrictModel

SEED = 0
REPEATS = 25  # of what is known already, one after the other: then the sampler has nothing new to propose
ATTEMPT = "attempt"


class Attempt(StrictModel):
    """What was found of some settings.

    rate: the highest that kept the latency, requests/s; None where it cannot be the best one: not `to_beat`, or (see
    `problem`) not at all. capacity: requests/s of a closed loop. p50_ms, p99_ms: at that rate. seconds: it took.
    """

    settings: Settings
    rate: float | None = None
    capacity: float | None = None
    to_beat: float = 0.0
    p50_ms: float | None = None
    p99_ms: float | None = None
    seconds: float = 0.0
    problem: str = ""

    @property
    def score(self) -> float:
        """For the sampler, which has to know how far away from the best the others are."""
        if self.rate is not None:
            return self.rate
        return 0.0 if self.capacity is None else min(self.capacity, self.to_beat)


class Evaluate(Protocol):
    def __call__(self, settings: Settings, to_beat: float) -> Attempt:
        """Serve and load it. `to_beat`: a rate; whoever cannot reach it need not be looked at closely."""


@dataclass
class Search:
    """One search for one model and bound; the journal holds what earlier runs of the same found."""

    space: Space
    study: optuna.Study
    attempts: dict[Settings, Attempt]

    @classmethod
    def open(cls, journal: Path, space: Space, key: Sequence[object]) -> "Search":
        """key: all that a result depends on; another key is another search."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        journal.parent.mkdir(parents=True, exist_ok=True)
        study = optuna.create_study(
            study_name=hashlib.sha256(repr((space, *key)).encode()).hexdigest(),
            storage=JournalStorage(JournalFileBackend(str(journal))),
            sampler=optuna.samplers.TPESampler(seed=SEED, multivariate=True, n_startup_trials=6),
            direction="maximize",
            load_if_exists=True,
        )
        found = (trial.user_attrs.get(ATTEMPT) for trial in study.get_trials(states=(TrialState.COMPLETE,)))
        known = [Attempt.model_validate(document) for document in found if document is not None]
        return cls(space, study, {attempt.settings: attempt for attempt in known})

    @property
    def best(self) -> Attempt | None:
        """The highest rate; of equal ones the first."""
        return max((entry for entry in self.attempts.values() if entry.rate), key=lambda e: e.rate or 0, default=None)

    def run(
        self, guesses: Sequence[Settings], evaluate: Evaluate, until: float, announce: Callable[[str], None]
    ) -> None:
        """Try the guesses, then what the sampler proposes, until that moment of time.monotonic()."""
        for settings in guesses:
            if settings not in self.attempts:
                self.study.enqueue_trial(self._parameters(settings), skip_if_exists=True)
        repeats = 0
        while time.monotonic() < until and repeats < REPEATS and len(self.attempts) < len(self.space.settings()):
            trial = self.study.ask()
            settings = self._propose(trial)
            known = self.attempts.get(settings)
            repeats = 0 if known is None else repeats + 1
            if known is None:
                announce(str(settings))
                known = self.try_settings(settings, evaluate)
                trial.set_user_attr(ATTEMPT, known.model_dump(mode="json"))
            self.study.tell(trial, known.score)

    def try_settings(self, settings: Settings, evaluate: Evaluate) -> Attempt:
        started = time.monotonic()
        attempt = evaluate(settings, self.best.rate or 0.0 if self.best else 0.0)
        attempt = attempt.model_copy(update={"seconds": round(time.monotonic() - started, 1)})
        self.attempts[settings] = attempt
        return attempt

    def _propose(self, trial: Trial) -> Settings:
        space = self.space
        plan = space.plans[trial.suggest_categorical("plan", range(len(space.plans)))]
        batch_size = space.batch_sizes[trial.suggest_int("batch_size", 0, len(space.batch_sizes) - 1)]
        delay = space.delays_ms[trial.suggest_int("delay", 0, len(space.delays_ms) - 1)]
        return Settings(*plan, batch_size, delay if batch_size > 1 else space.delays_ms[0])

    def _parameters(self, settings: Settings) -> dict[str, Any]:
        return {
            "plan": self.space.plans.index((settings.workers, settings.threads)),
            "batch_size": self.space.batch_sizes.index(settings.batch_size),
            "delay": self.space.delays_ms.index(settings.max_batch_delay_ms),
        }
