"""A training from its folder of pictures to its recipe."""

from pathlib import Path
from typing import Any

import torch

from mar_tools.machine import describe_machine, package_versions
from mar_tools.terminal import print_line, print_tables
from mar_tools.training.annotated import is_annotated
from mar_tools.training.classifying import open_classifier_course
from mar_tools.training.courses import SPLIT, Course, Request
from mar_tools.training.curves import draw_curves
from mar_tools.training.detecting import open_detector_course
from mar_tools.training.fitting import TABLE
from mar_tools.training.interruptions import told_how_to_go_on
from mar_tools.training.progress import read_history
from mar_tools.training.records import begin_record, check_places, check_record, write_record
from mar_tools.training.searching import search_settings, search_table
from mar_tools.training.settings import Settings
from mar_tools.training.splitting import check_same_split, write_split
from vision_serving.validation import parse_config

PACKAGES = ("torch", "torchvision", "timm", "pytorch-lightning")
CHECKPOINTS, SEARCH, CURVES = "checkpoints", "search", "curves.png"


def train(request: Request) -> dict[str, Any]:
    """Train, judge and hand over; return what there is to tell, which is in the folder's record too.

    A folder with COCO annotations trains a detector, any other a classifier.
    """
    check_record(request.output, request.asked(), request.resume, request.force)
    check_places(request.output, request.data)
    parse_config(Settings, request.stated, "train_model.py")  # before the pictures, which take minutes to read
    torch.manual_seed(request.seed)
    course = (open_detector_course if is_annotated(request.data) else open_classifier_course)(request)
    settings = parse_config(Settings, {**course.defaults, **request.stated}, "train_model.py")
    if request.resume and (request.output / SPLIT).exists():
        check_same_split(course.split, request.data, request.output / SPLIT)
    begin_record(request.output, request.asked(), request.resume)
    write_split(course.split, request.data, request.output / SPLIT)
    with told_how_to_go_on(lambda: describe_end(request.output)):
        return run_course(course, settings, request)


def run_course(course: Course, settings: Settings, request: Request) -> dict[str, Any]:
    """Train what is prepared."""
    counts = {part: len(pictures) for part, pictures in course.split.items()}
    shown = ", ".join(f"{part} {count}" for part, count in counts.items())
    print_line(f"{len(course.labels)} classes; pictures: {shown}")
    print_line(f"{request.model} begins with {course.taken}")
    output, judged_by = request.output, course.judged_by
    if request.search:
        place = output / SEARCH
        settings, study = search_settings(settings, request.search, place, course.searched, course.try_settings)
        print_tables(search_table(study, judged_by, course.searched), to_stderr=True)
    fitted = course.fit(settings, output / CHECKPOINTS)
    course.tell_chance(fitted.score)
    tested, recipe = course.finish(output, request.name)
    draw_curves(output / CHECKPOINTS / TABLE, judged_by, fitted.epoch, output / CURVES)
    found: dict[str, Any] = {
        "recipe": str(recipe),
        "began_with": course.taken,
        "classes": list(course.labels),
        "pictures": {**counts, "left_out": course.left_out},
        "settings": settings.model_dump(),
        "judged_by": judged_by,
        "best_epoch": fitted.epoch,
        "epochs": fitted.epochs,
        f"validation_{judged_by}": round(fitted.score, 4),
        **{f"test_{name}": round(value, 4) for name, value in tested.items()},
        "seconds": round(fitted.seconds, 1),
        "machine": describe_machine(),
        "packages": package_versions(PACKAGES),
    }
    write_record(output, found)
    return found


def describe_end(output: Path) -> str:
    """Say what an interrupted training has, and how it goes on."""
    rows = read_history(output / CHECKPOINTS / TABLE)
    kept = f"{len(rows)} epochs are kept" if rows else "no epoch was whole yet"
    return f"stopped; {kept} in {output}; the same command with --resume goes on"
