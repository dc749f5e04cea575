"""The settings of a training, found by trying: Optuna proposes, short trainings judge."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mar_tools.terminal import Table, new_table, number_column
from mar_tools.training.settings import Settings

SHORTER = 3  # times fewer epochs than the training itself has
LEAST_EPOCHS = 2
Try = Callable[[Settings, Path], float]  # -> the figure that a training is judged by
SEARCHED = ("learning_rate", "weight_decay", "label_smoothing", "augment", "batch_size")


def search_settings(settings: Settings, count: int, folder: Path, attempt: Try) -> tuple[Settings, Any]:
    """Try so many settings; return the best ones, with the epochs of the given ones, and Optuna's study.

    The journal in `folder` remembers what was tried, so a search that was interrupted goes on.
    """
    import optuna
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    folder.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        study_name="training",
        storage=optuna.storages.JournalStorage(JournalFileBackend(str(folder / "search.journal"))),
        sampler=optuna.samplers.TPESampler(seed=settings.seed, n_startup_trials=5),
        direction="maximize",
        load_if_exists=True,
    )
    if not study.trials:
        study.enqueue_trial({name: getattr(settings, name) for name in SEARCHED})
    done = sum(trial.state == optuna.trial.TrialState.COMPLETE for trial in study.trials)
    for _ in range(count - done):
        trial = study.ask()
        chosen = settings.model_copy(update=propose(trial, settings))
        short = chosen.model_copy(update={"epochs": max(LEAST_EPOCHS, settings.epochs // SHORTER)})
        study.tell(trial, attempt(short, folder / f"{trial.number:02}"))
    return settings.model_copy(update=study.best_params), study


def propose(trial: Any, settings: Settings) -> dict[str, Any]:
    """Return the values of one trial, around those that were given."""
    rate, batch = settings.learning_rate, settings.batch_size
    return {
        "learning_rate": trial.suggest_float("learning_rate", rate / 10, rate * 10, log=True),
        "weight_decay": trial.suggest_float("weight_decay", 0.0, 0.1),
        "label_smoothing": trial.suggest_float("label_smoothing", 0.0, 0.2),
        "augment": trial.suggest_categorical("augment", ["none", "light", "standard"]),
        "batch_size": trial.suggest_categorical("batch_size", sorted({max(2, batch // 2), batch, batch * 2})),
    }


def search_table(study: Any, judged_by: str) -> Table:
    """Return what was tried, the best first."""
    table = new_table(*(number_column(name) for name in (judged_by, *SEARCHED)))
    for trial in sorted((each for each in study.trials if each.value is not None), key=lambda each: -each.value):
        values = [trial.params[name] for name in SEARCHED]
        table.add_row(
            f"{trial.value:.4f}", *(f"{each:.3g}" if isinstance(each, float) else str(each) for each in values)
        )
    return table
