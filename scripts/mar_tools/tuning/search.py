"""Which settings are tried, in what order, and what each gave: Optuna's TPE, which goes on from its journal."""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mar_tools.tuning.space import Settings, Space
from vision_serving.errors import ConfigError, how_to_install
from vision_serving.validation import StrictModel

if TYPE_CHECKING:
    import optuna

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
        """Return what the sampler has to know: how far away from the best the others are."""
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
    study: "optuna.Study"
    attempts: dict[Settings, Attempt]

    @classmethod
    def open(cls, journal: Path, space: Space, key: Sequence[object]) -> "Search":
        """Open the search of `key`, all that a result depends on. Raises ConfigError without Optuna."""
        try:
            import optuna
            from optuna.storages.journal import JournalFileBackend
        except ModuleNotFoundError as error:
            raise ConfigError(f"tuning needs {how_to_install(error)}") from error
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        journal.parent.mkdir(parents=True, exist_ok=True)
        study = optuna.create_study(
            study_name=hashlib.sha256(repr((space, *key)).encode()).hexdigest(),
            storage=optuna.storages.JournalStorage(JournalFileBackend(str(journal))),
            sampler=optuna.samplers.TPESampler(seed=SEED, multivariate=True, n_startup_trials=6),
            direction="maximize",
            load_if_exists=True,
        )
        documents = [trial.user_attrs[ATTEMPT] for trial in study.get_trials() if ATTEMPT in trial.user_attrs]
        known = [Attempt.model_validate(document) for document in documents]
        # What did not start may do so now: another program may have had the memory.
        return cls(space, study, {attempt.settings: attempt for attempt in known if not attempt.problem})

    @property
    def best(self) -> Attempt | None:
        """Return the highest rate; of equal ones the first."""
        return max((entry for entry in self.attempts.values() if entry.rate), key=lambda e: e.rate or 0, default=None)

    def run(
        self, guesses: Sequence[Settings], evaluate: Evaluate, until: float, announce: Callable[[str], None]
    ) -> None:
        """Try the first guess, then the others and what the sampler proposes until that moment of time.monotonic()."""
        for number, settings in enumerate(guesses):
            if settings not in self.attempts and (number == 0 or time.monotonic() < until):
                self._try_guess(settings, evaluate, announce)
        repeats = 0
        while time.monotonic() < until and repeats < REPEATS and len(self.attempts) < len(self.space.settings()):
            trial = self.study.ask(self._distributions())
            settings = self._settings_at(trial.params)
            known = self.attempts.get(settings)
            repeats = 0 if known is None else repeats + 1
            if known is None:
                known = self._try(settings, evaluate, announce)
                trial.set_user_attr(ATTEMPT, known.model_dump(mode="json"))
            self.study.tell(trial, known.score)

    def _try_guess(self, settings: Settings, evaluate: Evaluate, announce: Callable[[str], None]) -> None:
        """Try a guess. The journal then has it, as if the sampler had proposed it."""
        import optuna

        attempt = self._try(settings, evaluate, announce)
        places = {
            "plan": self.space.plans.index((settings.workers, settings.threads)),
            "batch_size": self.space.batch_sizes.index(settings.batch_size),
            "delay": self.space.delays_ms.index(settings.max_batch_delay_ms),
        }
        trial = optuna.trial.create_trial(
            params=places,
            distributions=self._distributions(),
            value=attempt.score,
            user_attrs={ATTEMPT: attempt.model_dump(mode="json")},
        )
        self.study.add_trial(trial)

    def _try(self, settings: Settings, evaluate: Evaluate, announce: Callable[[str], None]) -> Attempt:
        announce(str(settings))
        started = time.monotonic()
        attempt = evaluate(settings, (self.best.rate or 0.0) if self.best else 0.0)
        attempt = attempt.model_copy(update={"seconds": round(time.monotonic() - started, 1)})
        self.attempts[settings] = attempt
        return attempt

    def _distributions(self) -> dict[str, Any]:
        """Return the distributions of the places in the space; plans have no order, numbers do."""
        from optuna.distributions import CategoricalDistribution, IntDistribution

        return {
            "plan": CategoricalDistribution(range(len(self.space.plans))),
            "batch_size": IntDistribution(0, len(self.space.batch_sizes) - 1),
            "delay": IntDistribution(0, len(self.space.delays_ms) - 1),
        }

    def _settings_at(self, places: Mapping[str, int]) -> Settings:
        plan, batch_size = self.space.plans[places["plan"]], self.space.batch_sizes[places["batch_size"]]
        return Settings(*plan, batch_size, self.space.delays_ms[places["delay"] if batch_size > 1 else 0])
