"""The process of one trial: `python -m mar_tools.building.trial_process FOLDER`, with trial.json there.

Exports, verifies, and writes result.json. Exit status 0 where it could say what happened.
"""

import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from mar_tools.building.trials import RESULT, TRIAL, CandidateTrial, TrialResult
from mar_tools.command_line import run
from mar_tools.exporting.export import export_model
from mar_tools.exporting.export_folders import REFERENCE, load_reference
from mar_tools.models.checkpoints import load_checkpoint
from mar_tools.verification.gate import verify_export
from vision_serving.errors import MissingPackageError, VisionServingError, tell

MESSAGE_CHARS = 300


def main() -> None:
    answer_trial(perform)


def answer_trial(answer: Callable[[CandidateTrial], TrialResult]) -> None:
    """Read the trial from the folder that the command names, and write its result there."""
    exchange = Path(sys.argv[1])
    trial = CandidateTrial.model_validate_json((exchange / TRIAL).read_bytes())
    trial = trial.model_copy(update={"recipe": trial.recipe.located_in(trial.recipe_folder)})
    (exchange / RESULT).write_text(answer(trial).model_dump_json(), encoding="utf-8")


def perform(trial: CandidateTrial) -> TrialResult:
    """Export and verify. Return why there is no verification report; nothing where there is one."""
    reference = trial.exports / trial.recipe.name / REFERENCE
    try:
        checkpoint = load_checkpoint(trial.recipe) if trial.is_reference else load_reference(reference)
        print(f"exporting {trial.folder.name}", flush=True)
        export_model(trial.recipe, checkpoint, trial.backend, trial.precision, trial.exports, trial.device_type)
        del checkpoint  # its weights are not needed to verify, and large models need the room
        print(f"verifying {trial.folder.name}", flush=True)
        verify_export(trial.folder)
    except Exception as error:  # exporters and runtimes raise whatever they like; the log has all of it
        traceback.print_exc()
        return describe_problem(error)
    return TrialResult()


def describe_problem(error: Exception) -> TrialResult:
    """Return an error as a result: what ours say, and the names of others. Ours with a cause were not foreseen."""
    if isinstance(error, MissingPackageError):
        return TrialResult(problem="missing package", reason=str(error))
    if isinstance(error, VisionServingError):
        problem = "unforeseen" if error.__cause__ else "refused"
        return TrialResult(problem=problem, reason=tell(error))
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    names = dict.fromkeys(type(found).__name__ for found in (error, cause))
    said = next((line.strip() for line in str(cause).splitlines() if line.strip()), "")
    return TrialResult(problem="unforeseen", reason=f"{', '.join(names)}: {said}"[:MESSAGE_CHARS])


if __name__ == "__main__":
    run(main)
