"""The process of one trial: `python -m mar_tools.building.trial_process FOLDER`, with trial.json there.

Exports, verifies, and writes result.json. Exit status 0 where it could say what happened.
"""

import sys
import traceback
from pathlib import Path

from mar_tools.building.trials import NOT_POSSIBLE, RESULT, TRIAL, Trial, TrialResult
from mar_tools.command_line import run
from mar_tools.exporting.export import export_model
from mar_tools.exporting.export_folders import REFERENCE, load_reference
from mar_tools.models.checkpoints import load_checkpoint
from mar_tools.verification.gate import verify_export
from vision_serving.errors import MissingPackageError, VisionServingError

MESSAGE_CHARS = 300


def main() -> None:
    exchange = Path(sys.argv[1])
    trial = Trial.model_validate_json((exchange / TRIAL).read_bytes())
    trial.recipe._folder = trial.recipe_folder
    (exchange / RESULT).write_text(perform(trial).model_dump_json(), encoding="utf-8")


def perform(trial: Trial) -> TrialResult:
    """Return why there is no verification report, in one line; empty where there is one."""
    try:
        export_and_verify(trial)
    except MissingPackageError as error:
        return TrialResult(problem=str(error), is_missing_package=True)
    except VisionServingError as error:
        traceback.print_exc()
        return TrialResult(problem=f"{NOT_POSSIBLE}: {' '.join(str(error).split())}")
    except Exception as error:  # exporters and runtimes raise whatever they like; the log has all of it
        traceback.print_exc()
        said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        return TrialResult(problem=f"{NOT_POSSIBLE}: {type(error).__name__}: {said}"[:MESSAGE_CHARS])
    return TrialResult(problem="")


def export_and_verify(trial: Trial) -> None:
    reference = trial.exports / trial.recipe.name / REFERENCE
    checkpoint = load_checkpoint(trial.recipe) if trial.is_reference else load_reference(reference)
    print(f"exporting {trial.folder.name}", flush=True)
    export_model(trial.recipe, checkpoint, trial.backend, trial.precision, trial.exports, trial.device_type)
    del checkpoint  # its weights are not needed to verify, and large models need the room
    print(f"verifying {trial.folder.name}", flush=True)
    verify_export(trial.folder)


if __name__ == "__main__":
    run(main)
