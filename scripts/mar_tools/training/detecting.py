"""The training of a detector: from pictures with boxes to its mean average precision and its recipe."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mar_tools.images import spread_evenly
from mar_tools.terminal import print_line, show_items
from mar_tools.training.annotated import AnnotatedFolder, AnnotatedPicture, read_annotated
from mar_tools.training.boxed_pictures import BoxedDataset, collate_examples, new_box_change
from mar_tools.training.courses import SPLIT, Request
from mar_tools.training.detector_networks import DetectorStart, start_detector
from mar_tools.training.detectors import DetectorTraining, Judge
from mar_tools.training.fitting import Fitted, fit, new_loader
from mar_tools.training.handing_over import HELDOUT_COUNT, hand_over_detector
from mar_tools.training.searching import SEARCHED
from mar_tools.training.settings import Settings
from mar_tools.training.splitting import Split, split_pictures
from vision_serving.config import DeviceType
from vision_serving.graphs.sources import load_state

NOTHING = 0.005  # mAP that boxes at random reach


def open_detector_course(request: Request) -> "DetectorCourse":
    """Read the pictures and boxes of a request, divide them, and begin its network. Raises ConfigError."""
    folder = read_annotated(request.data)
    split = split_pictures(folder, request.output / SPLIT, request.seed)
    start = start_detector(request.model, request.weights, len(folder.labels), request.size)
    return DetectorCourse(start, folder, split, request.device_type)


class DetectorCourse:
    """See `Course`."""

    judged_by = DetectorTraining.judged_by
    searched: Sequence[str] = tuple(name for name in SEARCHED if name != "label_smoothing")

    def __init__(
        self, start: DetectorStart, folder: AnnotatedFolder, split: Split[AnnotatedPicture], device_type: DeviceType
    ) -> None:
        self.labels, self.split, self.taken, self.left_out = folder.labels, split, start.taken, len(folder.left_out)
        self.defaults: Mapping[str, Any] = {"learning_rate": start.learning_rate, "batch_size": start.batch_size}
        self._start, self._device_type, self._batch_size = start, device_type, start.batch_size
        self._judge = Judge(start)
        self._initial = {name: tensor.clone() for name, tensor in start.network.state_dict().items()}

    def fit(self, settings: Settings, place: Path) -> Fitted:
        network, preprocessing = self._start.network, self._start.preprocessing
        load_state(network, self._initial)
        change = new_box_change(settings.augment, settings.flip)
        data = (
            BoxedDataset(
                self.split["train"], preprocessing, self._start.first_class, change, settings.seed, trains=True
            ),
            self._as_served(self.split["validation"]),
        )
        training = DetectorTraining(self._start, self._judge, settings)
        fitted = fit(training, data, settings, place, self._device_type, collate_examples)
        load_state(network, fitted.network_state())
        return fitted

    def try_settings(self, settings: Settings, place: Path) -> float:
        return self.fit(settings, place).score

    def tell_chance(self, score: float) -> None:
        if score <= NOTHING:
            print_line(
                f"the network learned next to nothing (mAP {score:.4f}): begin with trained weights, or give more "
                "--epochs or another --learning-rate"
            )

    def finish(self, output: Path, name: str) -> tuple[dict[str, float], Path]:
        heldout = spread_evenly(self.split["test"], HELDOUT_COUNT)
        figures = self._measure(self.split["test"])
        required = figures["map"] if len(heldout) == len(self.split["test"]) else self._measure(heldout)["map"]
        recipe = hand_over_detector(output, name, self._start, self.labels, (self.split["train"], heldout), required)
        return figures, recipe

    def _measure(self, pictures: Sequence[AnnotatedPicture]) -> dict[str, float]:
        """Return mAP of the graph that is served."""
        settings = Settings(batch_size=self._batch_size)
        batches = new_loader(self._as_served(pictures), settings, training=False, collate=collate_examples)
        self._judge.begin(self._start.network, torch.device("cpu"))
        for batch in show_items(batches, "judging by the test", len(batches)):
            self._judge.see(batch)
        return self._judge.figures()

    def _as_served(self, pictures: Sequence[AnnotatedPicture]) -> BoxedDataset:
        return BoxedDataset(pictures, self._start.preprocessing, self._start.first_class)
