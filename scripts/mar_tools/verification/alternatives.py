"""Whether another usual preprocessing makes the reference better on labelled pictures: then the recipe's is wrong.

An export that agrees with a reference of wrong mean and std is as wrong as that, and passes every other bound.
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mar_tools.exporting.export_folders import load_reference
from mar_tools.images import spread_evenly
from mar_tools.measures import name_measure
from mar_tools.models.checkpoints import Checkpoint, write_preprocessing
from mar_tools.models.handlers_by_task import new_handler
from mar_tools.models.normalisations import NORMALISATIONS, Values
from mar_tools.verification.accuracy import find_hits, find_primary, measure_accuracy
from mar_tools.verification.labelled import VerificationImages
from mar_tools.verification.observations import Observation, observe
from vision_serving.backends.eager import EagerBackend
from vision_serving.config import HandlerConfig, PreprocessingConfig, ResizeConfig
from vision_serving.graphs.construction import build_graph, find_detector_graph
from vision_serving.handler import CPU, VisionHandler

MOST_IMAGES, LEAST_IMAGES = 64, 8
MOST_ATTEMPTS = 9
BUDGET_CPU_S = 90.0  # of all attempts: a network that is too slow for LEAST_IMAGES in it is not tried
WORTH_TELLING = 0.02
CLEAR_GAIN = 0.1  # on MOST_IMAGES pictures, of a measure that no single picture has, as mAP
CLEAR_DEVIATIONS = 3.0  # of the pictures that only one of both has right, by how many standard deviations they differ


@dataclass(frozen=True)
class Attempt:
    """One preprocessing, and how good the reference is with it. hits: of each picture, where it has one class."""

    name: str
    preprocessing: PreprocessingConfig
    accuracy: dict[str, float]
    hits: tuple[bool, ...] = ()

    def describe(self, images: int) -> dict[str, Any]:
        """Return it as verification.json has it. The first one is the recipe's own."""
        stated = self.preprocessing.model_dump(mode="json", exclude_none=True)
        return {"name": self.name, "accuracy": self.accuracy, "images": images, "preprocessing": stated}


@dataclass(frozen=True)
class Alternatives:
    """attempts: as verification.json has them; none where the network is too slow. advice: in a sentence.

    is_clear: whether so many pictures say it that the recipe must be wrong; else the advice is how many would.
    """

    attempts: list[dict[str, Any]]
    advice: str | None = None
    is_clear: bool = False


class Trials:
    """Runs the reference with other preprocessings, on some of the labelled pictures."""

    def __init__(self, folder: Path, config: HandlerConfig, images: VerificationImages) -> None:
        self.checkpoint: Checkpoint = load_reference(folder)
        self._config = config
        self._images = images
        self.indices = self._choose_indices()

    def _choose_indices(self) -> list[int]:
        """Choose so many pictures that all attempts fit the budget; none where those would be too few."""
        handler, few = self._assemble(self._config.preprocessing), self._images.paths[:3]
        observe(handler, few[:1])  # what is done once is not counted
        started = time.process_time()
        observe(handler, few)
        count = int(BUDGET_CPU_S / MOST_ATTEMPTS / max((time.process_time() - started) / len(few), 1e-4))
        everything = range(len(self._images.paths))
        return spread_evenly(everything, min(count, MOST_IMAGES)) if count >= LEAST_IMAGES else []

    def _assemble(self, preprocessing: PreprocessingConfig) -> VisionHandler:
        checkpoint, task = self.checkpoint, self._config.task
        source = checkpoint.source
        graph = build_graph(checkpoint.network, task, preprocessing, source.output, source.inputs)
        handler = new_handler(task)
        config = self._config.model_copy(update={"preprocessing": preprocessing})
        backend: Any = EagerBackend(graph, CPU)
        handler.assemble(config, checkpoint.labels, backend)
        return handler

    def run(self, name: str, preprocessing: PreprocessingConfig) -> Attempt:
        paths = [self._images.paths[index] for index in self.indices]
        return self.judge(name, preprocessing, observe(self._assemble(preprocessing), paths, whole=True))

    def judge(self, name: str, preprocessing: PreprocessingConfig, seen: Sequence[Observation]) -> Attempt:
        assert self._images.truth is not None
        task, truth = self._config.task, [self._images.truth[index] for index in self.indices]
        accuracy = measure_accuracy(task, seen, truth)
        return Attempt(name, preprocessing, accuracy, tuple(find_hits(seen, truth)) if "top1" in accuracy else ())


def try_alternatives(
    folder: Path, config: HandlerConfig, images: VerificationImages, expected: Sequence[Observation]
) -> Alternatives:
    """Try usual means and stds, then the other order of colours, then other sizes, each with the best so far.

    folder: of the reference; expected: what it sees with the recipe's own preprocessing.
    """
    trials = Trials(folder, config, images)
    if not trials.indices:
        return Alternatives([])
    own = trials.judge("the recipe's own", config.preprocessing, [expected[index] for index in trials.indices])
    attempts, primary = [own], find_primary(own.accuracy)
    for list_next in (list_normalisations, list_colour_orders, list_geometries):
        best = max(attempts, key=lambda attempt: attempt.accuracy[primary])
        prefix = "" if best is own else f"{best.name}, "
        for name, preprocessing in list_next(best.preprocessing, trials.checkpoint):
            attempts.append(trials.run(prefix + name, preprocessing))
    described = [attempt.describe(len(trials.indices)) for attempt in attempts]
    best = max(attempts, key=lambda attempt: attempt.accuracy[primary])
    gain = best.accuracy[primary] - own.accuracy[primary]
    if gain < WORTH_TELLING:
        return Alternatives(described)
    is_clear = count_needed(own, best, gain) <= len(trials.indices)
    return Alternatives(described, _advise(own, best, gain, len(trials.indices)), is_clear)


def _advise(own: Attempt, best: Attempt, gain: float, count: int) -> str:
    """Return what to write into the recipe; where so few pictures may be chance, how many would not be."""
    primary = find_primary(own.accuracy)
    measured = (
        f"{name_measure(primary)} is {own.accuracy[primary]:.4g} on {count} labelled pictures with the recipe's "
        f"preprocessing, and {best.accuracy[primary]:.4g} with {best.name}"
    )
    needed = count_needed(own, best, gain)
    if needed <= count:
        stated = write_preprocessing(best.preprocessing)
        return f"another preprocessing is better: {measured}. The recipe means that by `preprocessing: {stated}`"
    how = (
        "label so many" if needed <= MOST_IMAGES else f"a build tries {MOST_IMAGES}, so build it with each and compare"
    )
    return (
        f"{count} labelled pictures do not tell whether another preprocessing is better; about {needed} of this kind "
        f"would: {how} ({measured})"
    )


def count_needed(own: Attempt, best: Attempt, gain: float) -> int:
    """Return how many pictures like these would not differ so by chance.

    Where a share d of n pictures is right with one of both alone, chance makes a difference of (d / n) ** 0.5 of them.
    """
    if not own.hits:
        return math.ceil(MOST_IMAGES * (CLEAR_GAIN / gain) ** 2)
    turned = sum(after != before for before, after in zip(own.hits, best.hits, strict=True)) / len(own.hits)
    return math.ceil(turned * (CLEAR_DEVIATIONS / gain) ** 2)


Named = tuple[str, PreprocessingConfig]


def list_normalisations(own: PreprocessingConfig, checkpoint: Checkpoint) -> Iterator[Named]:
    """Yield other means and stds: the usual ones, the published one, and the recipe's as parts of 255."""
    gray = slice(None) if own.channels == 3 else slice(1, 2)  # of ImageNet the green one
    choices = {name: (mean[gray], std[gray]) for name, (mean, std) in NORMALISATIONS.items()}
    if checkpoint.published is not None and len(checkpoint.published.mean) == own.channels:
        choices = {"the published mean and std": (checkpoint.published.mean, checkpoint.published.std), **choices}
    if max(own.mean) > 1:
        parts = [tuple(round(value / 255, 6) for value in values) for values in (own.mean, own.std)]
        choices = {"mean and std divided by 255": (parts[0], parts[1]), **choices}
    seen: list[tuple[Values, Values]] = [(own.mean, own.std)]
    for name, (mean, std) in choices.items():
        if not any(_are_close((*mean, *std), (*other[0], *other[1])) for other in seen):
            seen.append((mean, std))
            yield name, own.model_copy(update={"mean": mean, "std": std})


def _are_close(values: Values, others: Values) -> bool:
    return torch.allclose(torch.tensor(values), torch.tensor(others), atol=0.01, rtol=0.05)


def list_colour_orders(own: PreprocessingConfig, _: Checkpoint) -> Iterator[Named]:
    """Yield the other one. Mean and std go with the colours that they belong to."""
    if own.channels == 1:
        return
    order = "bgr" if own.color_order == "rgb" else "rgb"
    flipped = {"color_order": order, "mean": own.mean[::-1], "std": own.std[::-1]}
    yield f"{order} colours", own.model_copy(update=flipped)


def list_geometries(own: PreprocessingConfig, checkpoint: Checkpoint) -> Iterator[Named]:
    """Yield the published size, and other ways to the same size. A torchvision detector has its own inside."""
    if find_detector_graph(checkpoint.network) is not None:
        return
    published, names = checkpoint.published, ("resize", "crop", "interpolation", "antialias")
    if published is not None and (published.resize, published.crop) != (own.resize, own.crop):
        yield "the published size", own.model_copy(update={name: getattr(published, name) for name in names})
    size = own.crop if own.crop is not None else own.resize.size
    if isinstance(size, tuple) and own.resize.mode != "exact":
        yield "both sides squeezed", _resized(own, ResizeConfig(mode="exact", size=size))
    if isinstance(size, tuple) and own.resize.mode == "exact" and own.crop is None:
        yield "a letterbox", _resized(own, ResizeConfig(mode="letterbox", size=size))


def _resized(own: PreprocessingConfig, resize: ResizeConfig) -> PreprocessingConfig:
    return own.model_copy(update={"resize": resize, "crop": None})
