"""From what a user asks to one result, or to a ladder of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mar_tools.compressing.compression import Compression, compress
from mar_tools.compressing.ladder import climb
from mar_tools.compressing.originals import load_teacher, read_data, read_original, settings_of
from mar_tools.compressing.steps import Steps
from mar_tools.machine import describe_machine, package_versions
from mar_tools.models.recipes import NAME, read_recipe
from mar_tools.training.records import begin_record, check_places, check_record, write_record
from mar_tools.training.settings import Settings
from vision_serving.config import DeviceType
from vision_serving.errors import ConfigError
from vision_serving.validation import parse_config

PACKAGES = ("torch", "torchvision", "timm", "pytorch-lightning", "torch-pruning")


@dataclass(frozen=True)
class Request:
    """What to compress how. stated: settings of the training that were given. budget_s: of a ladder."""

    recipe: Path
    data: Path
    output: Path
    name: str | None
    steps: Steps
    stated: dict[str, Any]
    max_drop: float
    device_type: DeviceType
    budget_s: float
    resume: bool
    force: bool


def run_steps(request: Request) -> dict[str, Any]:
    """Make one result; return what there is to tell, which is in the folder's record too."""
    run = begin(request)
    found = compress(run, request.steps, request.output, name_of(request))
    return finish(request, run, found)


def run_auto(request: Request) -> dict[str, Any]:
    """Make a ladder of results, build and time them; return what there is to tell."""
    run = begin(request)
    return finish(request, run, climb(run, request.recipe, request.output, name_of(request), request.budget_s))


def name_of(request: Request) -> str:
    """Return the name of the model. Raises ConfigError for one that no recipe can have."""
    name = request.name or request.output.resolve().name
    if not NAME.fullmatch(name):
        raise ConfigError(f"--name {name!r}: expected letters, digits, `_`, `.` and `-`, a letter or digit first")
    return name


def begin(request: Request) -> Compression:
    """Read the original and the pictures, and write down what is asked for. Raises ConfigError."""
    name_of(request)
    recipe = read_recipe(request.recipe)
    known = {"augment": "light", **settings_of(recipe)}
    settings = parse_config(Settings, {**known, **request.stated}, "compress_model.py")
    asked = {
        "recipe": str(request.recipe),
        "data": str(request.data),
        "steps": request.steps.model_dump(mode="json", exclude_none=True),
        "max_accuracy_drop": request.max_drop,
        **settings.model_dump(),
    }
    if request.output.resolve() == recipe.folder.resolve():
        raise ConfigError(f"--output {request.output}: holds the network to compress; give another folder")
    check_record(request.output, asked, request.resume, request.force)
    judging = recipe.verification.images
    check_places(request.output, request.data, *([] if judging is None else [recipe.path(judging)]))
    original = read_original(recipe, request.device_type)
    if request.steps.teacher is not None:  # one that cannot teach leaves no record, which would ask for --force
        load_teacher(request.steps.teacher, original)
    split = read_data(request.data, original, request.output, settings.seed, request.resume)
    begin_record(request.output, asked, request.resume)
    return Compression(original, split, settings, request.device_type, request.max_drop)


def finish(request: Request, run: Compression, found: dict[str, Any]) -> dict[str, Any]:
    """Write down what came of it."""
    found = {
        **found,
        "settings": run.settings.model_dump(),
        "pictures_of": {part: len(pictures) for part, pictures in run.split.items()},
        "machine": describe_machine(),
        "packages": package_versions(PACKAGES),
    }
    write_record(request.output, found)
    return found
