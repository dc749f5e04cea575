"""A training from its folder of pictures to its recipe."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mar_tools.machine import describe_machine, package_versions
from mar_tools.terminal import print_line, print_tables
from mar_tools.training.classifiers import ClassifierTraining
from mar_tools.training.curves import draw_curves
from mar_tools.training.fitting import TABLE, Fitted, fit, new_loader
from mar_tools.training.folders import LabelledPicture, read_class_folders
from mar_tools.training.handing_over import count_hits, hand_over
from mar_tools.training.networks import Start, start_network
from mar_tools.training.pictures import PictureDataset, new_change
from mar_tools.training.records import begin_record, check_record, write_record
from mar_tools.training.searching import search_settings, search_table
from mar_tools.training.settings import Settings
from mar_tools.training.splitting import Split, split_pictures, write_split
from vision_serving.config import DeviceType
from vision_serving.graphs.construction import build_graph
from vision_serving.graphs.pixels import Normalize
from vision_serving.graphs.sources import load_state

PACKAGES = ("torch", "torchvision", "timm", "pytorch-lightning")
CHECKPOINTS, SEARCH, SPLIT, CURVES = "checkpoints", "search", "split.csv", "curves.png"


@dataclass(frozen=True)
class Request:
    """What to train on what. name: of the model in its recipe. weights, size: see `start_network`.

    search: how many settings to try before. resume, force: what to do with a training that `output` holds.
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
    resume: bool = False
    force: bool = False

    def asked(self) -> dict[str, Any]:
        """Return what a training that goes on must have in common with this one."""
        chosen = {"data": str(self.data), "model": self.model, "weights": self.weights, "size": self.size}
        return {**chosen, "search": self.search, **self.settings.model_dump()}


def train_classifier(request: Request) -> dict[str, Any]:
    """Train, judge and hand over; return what there is to tell, which is in the folder's record too."""
    check_record(request.output, request.asked(), request.resume, request.force)
    folder = read_class_folders(request.data)
    split = split_pictures(folder, request.output / SPLIT, request.settings.seed)
    torch.manual_seed(request.settings.seed)
    start = start_network(request.model, request.weights, len(folder.labels), request.size)
    begin_record(request.output, request.asked(), request.resume)
    write_split(split, request.data, request.output / SPLIT)
    counts = {part: len(pictures) for part, pictures in split.items()}
    shown = ", ".join(f"{part} {count}" for part, count in counts.items())
    print_line(f"{len(folder.labels)} classes; pictures: {shown}")
    print_line(f"{request.model} begins with {start.taken}")
    course = ClassifierCourse(start, folder.labels, split, request.device_type)
    settings = request.settings
    if request.search:
        settings, study = search_settings(settings, request.search, request.output / SEARCH, course.try_settings)
        print_tables(search_table(study, course.judged_by), to_stderr=True)
    fitted = course.fit(settings, request.output / CHECKPOINTS)
    tell_chance(fitted.score, split["validation"])
    hits = course.judge()
    recipe = hand_over(request.output, request.name, start, folder.labels, split, hits)
    draw_curves(request.output / CHECKPOINTS / TABLE, course.judged_by, fitted.epoch, request.output / CURVES)
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
    write_record(request.output, found)
    return found


def tell_chance(score: float, pictures: Sequence[LabelledPicture]) -> None:
    """Say where a network learned nothing: it is no better than one that always names the most frequent class."""
    (_, most), *_ = Counter(picture.class_id for picture in pictures).most_common(1)
    if score <= most / len(pictures):
        print_line(
            f"the network learned nothing: the most frequent class alone reaches {score:.3f} as well; begin with "
            "trained weights, or give more --epochs or another --learning-rate"
        )


class ClassifierCourse:
    """One network with its pictures, trained once or several times, each time from where it began."""

    judged_by = ClassifierTraining.judged_by

    def __init__(self, start: Start, labels: Sequence[str], split: Split, device_type: DeviceType) -> None:
        self._start, self._split, self._classes = start, split, len(labels)
        self._device_type = device_type
        self._initial = {name: tensor.clone() for name, tensor in start.network.state_dict().items()}

    def fit(self, settings: Settings, place: Path) -> Fitted:
        """Train the network, which has the weights of the best epoch then. place: for checkpoints."""
        network, preprocessing = self._start.network, self._start.preprocessing
        load_state(network, self._initial)
        change = new_change(settings.augment, settings.flip, preprocessing)
        data = (
            PictureDataset(self._split["train"], preprocessing, change),
            PictureDataset(self._split["validation"], preprocessing),
        )
        training = ClassifierTraining(network, Normalize(preprocessing), self._classes, settings)
        fitted = fit(training, data, settings, place, self._device_type)
        load_state(network, fitted.network_state())
        return fitted

    def try_settings(self, settings: Settings, place: Path) -> float:
        """Return what a training with these settings reaches on the validation."""
        return self.fit(settings, place).score

    def judge(self) -> dict[LabelledPicture, bool]:
        """Return for each picture of the test whether the graph that is served finds its class."""
        pictures, preprocessing = self._split["test"], self._start.preprocessing
        graph = build_graph(self._start.network, "classification", preprocessing)
        batches = new_loader(PictureDataset(pictures, preprocessing), Settings(), training=False)
        return dict(zip(pictures, count_hits(graph, batches, torch.device(self._device_type)), strict=True))
