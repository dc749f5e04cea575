"""A training from its folder of pictures to its recipe."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mar_tools.machine import describe_machine, package_versions
from mar_tools.terminal import print_line, print_tables
from mar_tools.training.classifiers import ClassifierTraining
from mar_tools.training.curves import draw_curves
from mar_tools.training.fitting import TABLE, Fitted, fit, new_loader
from mar_tools.training.folders import read_class_folders
from mar_tools.training.handing_over import choose_heldout, count_hits, hand_over
from mar_tools.training.networks import start_network
from mar_tools.training.pictures import PictureDataset, new_change
from mar_tools.training.records import write_record
from mar_tools.training.searching import search_settings, search_table
from mar_tools.training.settings import Settings
from mar_tools.training.splitting import split_pictures, write_split
from vision_serving.config import DeviceType
from vision_serving.graphs.construction import build_graph
from vision_serving.graphs.pixels import Normalize
from vision_serving.graphs.sources import load_state

PACKAGES = ("torch", "torchvision", "timm", "pytorch-lightning")
CHECKPOINTS, SEARCH, SPLIT, CURVES = "checkpoints", "search", "split.csv", "curves.png"


@dataclass(frozen=True)
class Request:
    """What to train on what. name: of the model in its recipe. weights, size: see `start_network`.

    search: how many settings to try before.
    """

    data: Path
    output: Path
    name: str
    model: str
    weights: str
    size: int | None
    search: int
    settings: Settings
    device_type: DeviceType


def train_classifier(request: Request) -> dict[str, Any]:
    """Train, judge and hand over; return what there is to tell, which is in the folder's record too."""
    settings, output = request.settings, request.output
    torch.manual_seed(settings.seed)
    folder = read_class_folders(request.data)
    split = split_pictures(folder, output / SPLIT, settings.seed)
    write_split(split, request.data, output / SPLIT)
    counts = {part: len(pictures) for part, pictures in split.items()}
    start = start_network(request.model, request.weights, len(folder.labels), request.size)
    print_line(
        f"{len(folder.labels)} classes; pictures: {', '.join(f'{part} {count}' for part, count in counts.items())}"
    )
    print_line(f"{request.model} begins with {start.taken}")
    initial = {name: tensor.clone() for name, tensor in start.network.state_dict().items()}

    def fit_in(chosen: Settings, place: Path) -> Fitted:
        load_state(start.network, initial)
        change = new_change(chosen.augment, chosen.flip, start.preprocessing)
        data = (
            PictureDataset(split["train"], start.preprocessing, change),
            PictureDataset(split["validation"], start.preprocessing),
        )
        training = ClassifierTraining(start.network, Normalize(start.preprocessing), len(folder.labels), chosen)
        return fit(training, data, chosen, place, request.device_type)

    if request.search:
        attempt = lambda chosen, place: fit_in(chosen, place).score  # noqa: E731
        settings, study = search_settings(settings, request.search, output / SEARCH, attempt)
        print_tables(search_table(study, ClassifierTraining.judged_by), to_stderr=True)
    fitted = fit_in(settings, output / CHECKPOINTS)
    load_state(start.network, fitted.network_state())
    graph = build_graph(start.network, "classification", start.preprocessing)
    batches = new_loader(PictureDataset(split["test"], start.preprocessing), settings, training=False)
    hits = dict(zip(split["test"], count_hits(graph, batches, torch.device(request.device_type)), strict=True))
    heldout = choose_heldout(split)
    accuracy = sum(hits[picture] for picture in heldout) / len(heldout)
    recipe = hand_over(output, request.name, start, folder.labels, split, accuracy)
    draw_curves(output / CHECKPOINTS / TABLE, ClassifierTraining.judged_by, fitted.epoch, output / CURVES)
    found: dict[str, Any] = {
        "recipe": str(recipe),
        "began_with": start.taken,
        "classes": list(folder.labels),
        "pictures": {**counts, "left_out": len(folder.left_out)},
        "settings": settings.model_dump(),
        "best_epoch": fitted.epoch,
        "epochs": fitted.epochs,
        "validation_accuracy": round(fitted.score, 4),
        "test_accuracy": round(sum(hits.values()) / len(hits), 4),
        "seconds": round(fitted.seconds, 1),
        "machine": describe_machine(),
        "packages": package_versions(PACKAGES),
    }
    write_record(output, found)
    return found
