"""Write each form, build from it as a build does, and compare the answers with those of the network that was saved."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
import torch
from torch import Tensor, nn

from lab.checkpoints.forms import CLASSES, FORMS, Form
from mar_tools.models.checkpoints import load_checkpoint
from mar_tools.models.recipes import Recipe
from vision_serving.errors import ConfigError
from vision_serving.validation import StrictModel, parse_config, read_json

SEED = 0
SIZE = 224


class CheckpointRow(StrictModel):
    """first: the refusal of the recipe without further keys; None where it loads. keys: that were added then.

    difference: the largest one between the answers of what was loaded and what was saved; None where nothing loads.
    """

    form: str
    file: str
    first: str | None = None
    keys: str | None = None
    difference: float | None = None


class CheckpointResults(StrictModel):
    date: str
    versions: Mapping[str, str]
    rows: tuple[CheckpointRow, ...]


def read_results(path: Path) -> CheckpointResults:
    """Raises ConfigError."""
    return parse_config(CheckpointResults, read_json(path), str(path))


def write_results(results: CheckpointResults, path: Path) -> None:
    path.write_bytes(orjson.dumps(results.model_dump(mode="json", exclude_none=True), option=orjson.OPT_INDENT_2))


def read_form(form: Form) -> CheckpointRow:
    with TemporaryDirectory(prefix="form-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated writers are what people have
        torch.manual_seed(SEED)
        path = Path(folder) / form.file
        trained = form.write(form.build().eval(), path)
        pixels = torch.rand(2, 3, SIZE, SIZE)
        loaded, refusal = try_recipe(form, path, {})
        first = refusal
        if loaded is None and form.then:
            loaded, refusal = try_recipe(form, path, form.then)
            if loaded is None:
                raise ConfigError(f"{form.name}: refused again with {form.then}: {refusal}")
        keys = None if first is None or loaded is None else orjson.dumps(form.then).decode()
        difference = None if loaded is None or trained is None else compare(loaded, trained, pixels)
        return CheckpointRow(form=form.name, file=form.file, first=first, keys=keys, difference=difference)


def try_recipe(form: Form, path: Path, keys: Mapping[str, Any]) -> tuple[nn.Module | None, str | None]:
    """Return the network, or why there is none, without the folder."""
    classes = keys.get("arguments", {}).get("num_classes", CLASSES)
    (path.parent / "labels.txt").write_text("".join(f"class {index}\n" for index in range(classes)))
    section = {
        "name": "form",
        "task": "classification",
        "model": {**form.model, **keys, "weights": form.file},
        "labels": "labels.txt",
        "preprocessing": {"resize": {"mode": "exact", "size": [SIZE, SIZE]}},
    }
    try:
        return load_checkpoint(parse_config(Recipe, section, form.name).located_in(path.parent)).network, None
    except ConfigError as error:
        return None, str(error).replace(f"{path.parent}/", "")


@torch.inference_mode()
def compare(loaded: nn.Module, trained: nn.Module, pixels: Tensor) -> float:
    answers = [network.eval()(pixels) for network in (loaded, trained)]
    first, second = (getattr(answer, "logits", answer) for answer in answers)
    return float((first - second).abs().max())


def read_forms() -> tuple[CheckpointRow, ...]:
    return tuple(read_form(form) for form in FORMS)
