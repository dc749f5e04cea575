"""The training of a classifier: from folders of classes to its accuracy and its recipe."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mar_tools.terminal import print_line
from mar_tools.training.classifiers import ClassifierTraining
from mar_tools.training.courses import SPLIT, Request
from mar_tools.training.detector_networks import is_detector
from mar_tools.training.fitting import Fitted, fit, new_loader
from mar_tools.training.folders import LabelledPicture, PictureFolder, read_class_folders
from mar_tools.training.handing_over import count_hits, hand_over_classifier
from mar_tools.training.networks import Start, start_network
from mar_tools.training.pictures import PictureDataset, new_change
from mar_tools.training.searching import SEARCHED
from mar_tools.training.settings import Settings
from mar_tools.training.splitting import Split, split_pictures
from vision_serving.config import DeviceType
from vision_serving.errors import ConfigError
from vision_serving.graphs.construction import build_graph
from vision_serving.graphs.pixels import Normalize
from vision_serving.graphs.sources import load_state


def open_classifier_course(request: Request) -> "ClassifierCourse":
    """Read the pictures of a request, divide them, and begin its network. Raises ConfigError."""
    if is_detector(request.model):
        raise ConfigError(
            f"--model {request.model}: a detector needs boxes, and {request.data} has no COCO annotations; expected "
            "annotations.json, instances*.json or _annotations.coco.json"
        )
    folder = read_class_folders(request.data)
    split = split_pictures(folder, request.output / SPLIT, request.seed)
    start = start_network(request.model, request.weights, len(folder.labels), request.size)
    return ClassifierCourse(start, folder, split, request.device_type)


class ClassifierCourse:
    """See `Course`."""

    judged_by = ClassifierTraining.judged_by
    searched: Sequence[str] = SEARCHED

    def __init__(
        self, start: Start, folder: PictureFolder, split: Split[LabelledPicture], device_type: DeviceType
    ) -> None:
        self.labels, self.split, self.taken, self.left_out = folder.labels, split, start.taken, len(folder.left_out)
        self.defaults: Mapping[str, Any] = {}
        self._start, self._device_type = start, device_type
        self._initial = {name: tensor.clone() for name, tensor in start.network.state_dict().items()}

    def fit(self, settings: Settings, place: Path) -> Fitted:
        network, preprocessing = self._start.network, self._start.preprocessing
        load_state(network, self._initial)
        change = new_change(settings.augment, settings.flip, preprocessing)
        data = (
            PictureDataset(self.split["train"], preprocessing, change, settings.seed),
            PictureDataset(self.split["validation"], preprocessing),
        )
        training = ClassifierTraining(network, Normalize(preprocessing), len(self.labels), settings)
        fitted = fit(training, data, settings, place, self._device_type)
        load_state(network, fitted.network_state())
        return fitted

    def try_settings(self, settings: Settings, place: Path) -> float:
        return self.fit(settings, place).score

    def tell_chance(self, score: float) -> None:
        """Say where a network is no better than one that always names the most frequent class."""
        pictures = self.split["validation"]
        (_, most), *_ = Counter(picture.class_id for picture in pictures).most_common(1)
        if score <= most / len(pictures):
            print_line(
                f"the network learned nothing: the most frequent class alone reaches {most / len(pictures):.3f}; begin "
                "with trained weights, or give more --epochs or another --learning-rate"
            )

    def finish(self, output: Path, name: str) -> tuple[dict[str, float], Path]:
        hits = self._judge()
        recipe = hand_over_classifier(output, name, self._start, self.labels, self.split, hits)
        return {"accuracy": sum(hits.values()) / len(hits)}, recipe

    def _judge(self) -> dict[LabelledPicture, bool]:
        """Return for each picture of the test whether the graph that is served finds its class."""
        pictures, preprocessing = self.split["test"], self._start.preprocessing
        graph = build_graph(self._start.network, "classification", preprocessing)
        batches = new_loader(PictureDataset(pictures, preprocessing), Settings(), training=False)
        return dict(zip(pictures, count_hits(graph, batches, torch.device(self._device_type)), strict=True))
