"""The settings of a training, found by trying: Optuna proposes, short trainings judge."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mar_tools.terminal import Table, new_table, number_column, print_line
from mar_tools.training.progress import BrokenLossError
from mar_tools.training.settings import Settings

SHORTER = 3  # times fewer epochs than the training itself has
LEAST_EPOCHS = 2
STARTING = 5  # trials that are drawn at random
PLACE = "place"  # of a trial's checkpoints, in its attributes
Try = Callable[[Settings, Path], float]  # -> the figure that a training is judged by
SEARCHED = ("learning_rate", "weight_decay", "label_smoothing", "augment", "batch_size")


def search_settings(
    settings: Settings, count: int, folder: Path, searched: Sequence[str], attempt: Try
) -> tuple[Settings, Any]:
    """Try so many settings, of which those that are `searched` differ.

    Return the best ones, with the epochs of the given ones, and Optuna's study. The journal in `folder` remembers what
    was tried, so a search that was interrupted goes on.
    """
    import optuna
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    folder.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        study_name="training",
        storage=optuna.storages.JournalStorage(JournalFileBackend(str(folder / "search.journal"))),
        direction="maximize",
        load_if_exists=True,
    )
    take_up_again(study)
    # Seeded anew for each trial: a search that goes on would draw the settings of its first trials again.
    done = len(finished(study))
    if not study.trials:
        study.enqueue_trial({name: getattr(settings, name) for name in searched}, {PLACE: "00"})
    for number in range(done, count):
        study.sampler = optuna.samplers.TPESampler(seed=settings.seed + number, n_startup_trials=STARTING)
        trial = study.ask()
        chosen = settings.model_copy(update=propose(trial, settings, searched))
        short = chosen.model_copy(update={"epochs": max(LEAST_EPOCHS, settings.epochs // SHORTER)})
        trial.set_user_attr(PLACE, place := trial.user_attrs.get(PLACE, f"{number:02}"))
        print_line(f"setting {number + 1} of {count}: {describe(trial.params)}")
        study.tell(trial, try_settings(attempt, short, folder / place))
        shutil.rmtree(folder / place, ignore_errors=True)
    return settings.model_copy(update=study.best_params), study


def take_up_again(study: Any) -> None:
    """Put trials that an end of the process left halfway into the queue again, with the place of their checkpoints."""
    from optuna.trial import TrialState

    waiting = [trial.user_attrs.get(PLACE) for trial in study.get_trials(states=[TrialState.WAITING])]
    for trial in study.get_trials(states=[TrialState.RUNNING]):
        place = trial.user_attrs.get(PLACE)
        if place is not None and place not in waiting:
            study.enqueue_trial(trial.params, {PLACE: place})
        study.tell(trial.number, state=TrialState.FAIL)


def finished(study: Any) -> list[Any]:
    """Return the trials that came to an end."""
    from optuna.trial import TrialState

    return list(study.get_trials(states=[TrialState.COMPLETE]))


def try_settings(attempt: Try, settings: Settings, place: Path) -> float:
    """Return what an attempt reaches: 0 where its loss breaks, which says of these settings all there is to say."""
    try:
        return attempt(settings, place)
    except BrokenLossError as error:
        print_line(f"  {error}")
        return 0.0


def describe(values: Mapping[str, Any]) -> str:
    """Return settings in one line."""
    shown = {name: f"{each:.3g}" if isinstance(each, float) else each for name, each in values.items()}
    return ", ".join(f"{name.replace('_', ' ')} {each}" for name, each in shown.items())


def propose(trial: Any, settings: Settings, searched: Sequence[str]) -> dict[str, Any]:
    """Return the values of one trial, around those that were given."""
    rate, batch = settings.learning_rate, settings.batch_size
    ranges = {
        "learning_rate": lambda name: trial.suggest_float(name, rate / 10, rate * 10, log=True),
        "weight_decay": lambda name: trial.suggest_float(name, 0.0, 0.1),
        "label_smoothing": lambda name: trial.suggest_float(name, 0.0, 0.2),
        "augment": lambda name: trial.suggest_categorical(name, ["none", "light", "standard"]),
        "batch_size": lambda name: trial.suggest_categorical(name, sorted({max(2, batch // 2), batch, batch * 2})),
    }
    return {name: ranges[name](name) for name in searched}


def search_table(study: Any, judged_by: str, searched: Sequence[str]) -> Table:
    """Return what was tried, the best first."""
    table = new_table(*(number_column(name) for name in (judged_by, *(name.replace("_", " ") for name in searched))))
    for trial in sorted((each for each in study.trials if each.value is not None), key=lambda each: -each.value):
        values = [trial.params[name] for name in searched]
        table.add_row(
            f"{trial.value:.4f}", *(f"{each:.3g}" if isinstance(each, float) else str(each) for each in values)
        )
    return table
