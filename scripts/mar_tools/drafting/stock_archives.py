"""An archive of TorchServe's own image_classifier or object_detector -> a recipe that serves the same network.

The stock handlers resize, scale and choose boxes in their own code, which is the same for every archive.
"""

import ast
import tempfile
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import orjson

from mar_tools.drafting.drafts import Draft, Hints, Noted, choose_labels
from mar_tools.drafting.script_objects import read_program
from mar_tools.drafting.scripted_detectors import DETECTOR_ANSWER, find_scripted
from mar_tools.drafting.stock_files import StockArchive, read_stock_archive
from mar_tools.drafting.torchscript_drafts import CLASSIFIER, count_classes, task_of
from mar_tools.models.file_kinds import find_kind
from mar_tools.models.weight_files import FileContent, look_into
from vision_serving.errors import ConfigError
from vision_serving.options import Task

TASKS: dict[str, Task] = {"image_classifier": "classification", "object_detector": "detection"}
INDEX = "index_to_name.json"
STOCK = "as TorchServe's {} does"


def draft_archive(path: Path, hints: Hints) -> Draft:
    """Return the recipe of a stock archive, and the files of its network.

    Raises ConfigError for damaged archives, archives of ours, and those with a handler of their own.
    """
    archive = read_stock_archive(path)
    if archive.is_ours:
        raise ConfigError(f"{path}: built by this project already; serve it as it is")
    model = archive.model
    handler = str(model.get("handler", "")).removesuffix(".py")
    if handler not in TASKS:
        raise ConfigError(
            f"{path}: its handler is {handler!r}, a program of its own; expected one of {sorted(TASKS)}. What it does "
            "before and after the model stands in that file: write a recipe that says the same"
        )
    weights = _entry(archive, model.get("serializedFile"), "serializedFile")
    if weights is None:
        raise ConfigError(f"{path}: its manifest names no serializedFile, so it has no weights")
    definition = _entry(archive, model.get("modelFile"), "modelFile")
    name = hints.name or str(model["modelName"])
    draft = _draft_network(archive, definition, weights, TASKS[handler], hints)
    recipe = {
        "name": Noted(name, f"modelName of {path.name}"),
        "version": str(model.get("modelVersion") or "1.0"),
        **draft.recipe,
    }
    return replace(draft, recipe=recipe, is_unpacked=True, notes=(*draft.notes, *_surroundings(archive)))


def _entry(archive: StockArchive, name: object, key: str) -> str | None:
    """Return the entry that the manifest names, which lies at the top."""
    if not name:
        return None
    found = PurePosixPath(str(name)).name
    if found not in archive.files:
        raise ConfigError(f"{archive.path}: its manifest names {str(name)!r} as {key}, which is not in it")
    return found


def _surroundings(archive: StockArchive) -> tuple[str, ...]:
    """Return what else the archive has that a worker would use."""
    model = archive.model
    known = {
        "requirementsFile": "packages of requirements.txt that model.py may import: install them before you build",
        "configFile": "what its model-config.yaml says: this project has workers and batches in config.properties",
    }
    return tuple(note for key, note in known.items() if model.get(key))


def _draft_network(archive: StockArchive, definition: str | None, weights: str, task: Task, hints: Hints) -> Draft:
    """Return all of the recipe but name and version."""
    handler = next(name for name, of in TASKS.items() if of == task)
    where = STOCK.format(handler)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / weights
        path.write_bytes(archive.files[weights])
        model, files, classes, notes = _describe_network(archive, definition, path, task, hints.architecture)
    name = hints.name or str(archive.model["modelName"])
    labels = choose_labels(name, hints, _read_index(archive, classes), classes, f"from {INDEX}")
    recipe: dict[str, Any] = {"task": Noted(task, f"its handler is {handler}"), "model": model, "labels": labels.value}
    if task == "classification":
        recipe["preprocessing"] = Noted(CLASSIFIER, where)
        recipe["options"] = Noted({"top_k": 5}, where)
    else:
        recipe["preprocessing"] = Noted("auto", "the network's own, as object_detector gives it the whole picture")
        recipe["options"] = Noted({"score_threshold": 0.5}, where)
    return Draft(recipe, {**files, **labels.files}, (*labels.notes, *notes))


Described = tuple[dict[str, Any], dict[str, bytes], int | None, tuple[str, ...]]


def _describe_network(
    archive: StockArchive, definition: str | None, weights: Path, task: Task, asked: str | None
) -> Described:
    """Return `model`, its files, the number of classes and notes."""
    files = {weights.name: weights.read_bytes()}
    if definition is not None:
        text = archive.files[definition]
        content = look_into(weights)
        if not content.states or content.states[0].model_class:
            raise ConfigError(
                f"{archive.path}: {weights.name} holds {describe_content(content)}; save model.state_dict() instead"
            )
        shapes = content.states[0].shapes
        model = {"source": "python", "file": definition, "class": _find_class(archive, definition, text)}
        return {**model, "weights": weights.name}, {**files, definition: text}, count_classes(shapes, task), ()
    if find_kind(weights) == "torchscript":
        program = read_program(weights)
        if program.answer == DETECTOR_ANSWER:
            scripted = find_scripted(program, weights, asked)
            return scripted.model, scripted.files, scripted.architecture.classes, ()
        if task == "detection":
            task_of(program, archive.path)
        return {"source": "torchscript", "file": weights.name}, files, count_classes(program.shapes), ()
    raise ConfigError(
        f"{archive.path}: {weights.name} is no TorchScript file, and the archive has no model file beside it"
    )


def describe_content(content: FileContent) -> str:
    """Return what a file holds that is no plain state dict."""
    if content.states:
        return f"a whole pickled model ({content.states[0].model_class}), which loads by running its code"
    return f"no weights ({content.kind})"


def _find_class(archive: StockArchive, name: str, text: bytes) -> str:
    """Return the one class that the file defines, as the stock handlers demand it; the file does not run."""
    try:
        classes = [node.name for node in ast.parse(text).body if isinstance(node, ast.ClassDef)]
    except (SyntaxError, ValueError) as error:
        raise ConfigError(f"{archive.path}: {name} is no Python file that can be read ({error})") from error
    if len(classes) != 1:
        raise ConfigError(f"{archive.path}: {name} defines the classes {classes}; TorchServe's handlers expect one")
    return classes[0]


def _read_index(archive: StockArchive, classes: int | None) -> list[str] | None:
    """Return the label of each class, as TorchServe reads index_to_name.json; gaps are numbered."""
    if INDEX not in archive.files:
        return None
    try:
        index = orjson.loads(archive.files[INDEX])
        names = index.get("object_type_names")
        index = dict(enumerate(names)) if isinstance(names, list) else {int(key): name for key, name in index.items()}
        labels = {key: str(name[-1] if isinstance(name, list) else name) for key, name in index.items()}
    except (ValueError, AttributeError, IndexError) as error:
        raise ConfigError(f"{archive.path}: {INDEX} is no object of class numbers and names") from error
    count = classes or max(labels, default=-1) + 1
    return [labels.get(number, f"class {number}") for number in range(count)]
