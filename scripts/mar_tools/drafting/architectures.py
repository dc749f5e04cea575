"""Which model of torchvision or timm a state dict fits, by the names and shapes of all its tensors.

Models are built without memory for their weights. Those whose name is in the file's name come first.
"""

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from fractions import Fraction
from functools import cache
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any, Literal

import torch
from torchvision import models

from vision_serving.errors import ConfigError
from vision_serving.graphs.sources import NetworkSource, build_network
from vision_serving.options import Task

Shapes = Mapping[str, tuple[int, ...]]
Library = Literal["torchvision", "timm"]
COUNTER = "num_batches_tracked"
CLASSES: dict[Task, int] = {"classification": 1000, "detection": 91}
SAME_FAMILY = 0.9  # of the kinds of tensors
LIKELY_SIZES = (0.15, 6.0)  # parameters of a model with another number of classes, beside its published ones


@dataclass(frozen=True)
class Architecture:
    """A model whose tensors are those of a file."""

    library: Library
    name: str
    task: Task
    classes: int

    @property
    def arguments(self) -> dict[str, int]:
        return {} if self.classes == CLASSES[self.task] else {"num_classes": self.classes}


@dataclass(frozen=True)
class Near:
    """A model that most tensors of a file fit. strangers: names of the file that it lacks or has in another shape."""

    library: Library
    name: str
    fitting: int
    strangers: tuple[str, ...]


def fit_architecture(shapes: Shapes, name: str) -> list[Architecture]:
    """Return the model of that name where the tensors are its own."""
    return _fitting(shapes, [("torchvision" if name in models.list_models() else "timm", name)])


def is_published(name: str) -> bool:
    """Return whether torchvision or timm has a model of this name."""
    return name in _list_names()


def find_alike(name: str) -> list[str]:
    return get_close_matches(name, _list_names(), 3)


def _list_names() -> list[str]:
    own: list[str] = models.list_models(module=models) + models.list_models(module=models.detection)
    if find_spec("timm") is None:
        return own
    import timm

    return own + list(timm.list_models())


def find_named_architectures(shapes: Shapes, file_name: str) -> list[Architecture]:
    """Return the models that the name of a file names and that fit exactly."""
    named = [name for name in _likely_torchvision(shapes) if _is_named(name, file_name)]
    hinted = _named_timm(file_name)
    return _fitting(shapes, [("torchvision", name) for name in named] + [("timm", name) for name in hinted])


def search_architectures(shapes: Shapes) -> list[Architecture]:
    """Return the models that fit exactly: torchvision's, without one timm's. It takes up to half a minute."""
    return _fitting(shapes, (("torchvision", name) for name in _likely_torchvision(shapes))) or _search_timm(shapes)


def search_detectors(shapes: Shapes) -> list[Architecture]:
    """Return torchvision's detectors that fit exactly."""
    names = models.list_models(module=models.detection)
    return _fitting(shapes, (("torchvision", name) for name in _likely_torchvision(shapes) if name in names))


def published_labels(found: Architecture) -> tuple[list[str] | None, str]:
    """Return the names of ImageNet or COCO for as many classes; None for others."""
    if found.arguments or found.library != "torchvision":
        return None, ""
    names = list(models.get_model_weights(found.name).DEFAULT.meta["categories"])
    return names, f"assumed: those that torchvision publishes with {found.name}, as there are as many"


def find_nearest(shapes: Shapes) -> Near | None:
    """Return torchvision's model that most tensors fit, where that is more than half."""
    near = [_compare(shapes, "torchvision", name) for name in _likely_torchvision(shapes)]
    best = max(near, key=lambda entry: entry.fitting, default=None)
    return best if best is not None and best.fitting > len(shapes) / 2 else None


def _compare(shapes: Shapes, library: Library, name: str) -> Near:
    own = _shapes_of(library, name, None) or {}
    strangers = tuple(key for key, shape in shapes.items() if own.get(key) != shape)
    return Near(library, name, len(shapes) - len(strangers), strangers)


def _fitting(shapes: Shapes, candidates: Iterable[tuple[Library, str]]) -> list[Architecture]:
    found = (_fit(shapes, library, name) for library, name in candidates)
    return [architecture for architecture in found if architecture is not None]


def _fit(shapes: Shapes, library: Library, name: str) -> Architecture | None:
    own = _shapes_of(library, name, None)
    if own is None or own.keys() != shapes.keys():
        return None
    task = task_of(library, name)
    classes = _count_classes(own, shapes, CLASSES[task])
    if classes is None or (classes != CLASSES[task] and _shapes_of(library, name, classes) != shapes):
        return None
    return Architecture(library, name, task, classes)


def _count_classes(own: Shapes, shapes: Shapes, usual: int) -> int | None:
    """Return the number of classes that explains every difference; None where no number does."""
    found = {
        Fraction(shapes[key][0] * usual, shape[0]) if shapes[key] and shape else Fraction(0)
        for key, shape in own.items()
        if shapes[key] != shape
    }
    if not found:
        return usual
    (classes, *others) = found
    return int(classes) if not others and classes.denominator == 1 and classes > 0 else None


def task_of(library: Library, name: str) -> Task:
    return (
        "detection"
        if library == "torchvision" and name in models.list_models(module=models.detection)
        else "classification"
    )


@cache
def _shapes_of(library: Library, name: str, classes: int | None) -> Shapes | None:
    """Return the tensors of a model by name; None for one that cannot be built so."""
    arguments: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    source = NetworkSource.model_validate({"source": library, "name": name, "arguments": arguments})
    for device in ("meta", "cpu"):  # some builders compute with what they build
        try:
            with torch.device(device), warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # of a builder whose weights nobody looks at
                network = build_network(source, Path())
        except ConfigError:
            continue
        return {key: tuple(values.shape) for key, values in network.state_dict().items() if not key.endswith(COUNTER)}
    return None


def without_counters(shapes: Shapes) -> Shapes:
    """Leave out the counters of batch norm, which older files lack."""
    return {key: shape for key, shape in shapes.items() if not key.endswith(COUNTER)}


def _likely_torchvision(shapes: Shapes) -> Iterator[str]:
    """Yield the classifiers and detectors of about as many parameters."""
    size = sum(prod(shape) for shape in shapes.values())
    for module in (models, models.detection):
        for name in models.list_models(module=module):
            published = models.get_model_weights(name).DEFAULT.meta["num_params"]
            if LIKELY_SIZES[0] <= size / published <= LIKELY_SIZES[1]:
                yield name


def _is_named(name: str, file_name: str) -> bool:
    return re.search(rf"(?<![a-z0-9]){re.escape(name)}(?![a-z0-9])", file_name.lower()) is not None


def _named_timm(file_name: str) -> list[str]:
    if find_spec("timm") is None:
        return []
    import timm

    named = [name for name in timm.list_models() if _is_named(name, file_name)]
    return sorted(named, key=len, reverse=True)[:3]


def _search_timm(shapes: Shapes) -> list[Architecture]:
    """Look in the families of timm whose first model has tensors of the same kinds."""
    if find_spec("timm") is None:
        return []
    import timm

    parts = {part for name in shapes if (part := name.partition(".")[0]).isalpha()}
    kinds = _kinds(shapes)
    found: list[Architecture] = []
    for module in timm.list_modules():
        names = timm.list_models(module=module)
        if not names or not _speaks_of(f"timm.models.{module}", parts):
            continue
        own = _kinds(_shapes_of("timm", names[0], None) or {})
        if len(kinds & own) >= SAME_FAMILY * len(kinds):
            found += _fitting(shapes, (("timm", name) for name in names))
    return found


def _speaks_of(module: str, names: set[str]) -> bool:
    """Return whether the source of a module has all these attributes, as a family has the names of its layers."""
    specification = find_spec(module)
    if specification is None or specification.origin is None:
        return False
    return names <= set(re.findall(r"self\.(\w+)", Path(specification.origin).read_text(encoding="utf-8")))


def _kinds(shapes: Shapes) -> set[str]:
    return {re.sub(r"\d+", "#", name) for name in shapes}
