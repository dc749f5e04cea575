"""What is in a file of weights: its state dicts, and what stands beside them. Nothing of the file is run.

    content = look_into(Path("checkpoint.pth.tar"))
    content.kind                               "torch.save"
    [state.key for state in content.states]    ["state_dict", "state_dict_ema"]
    state.shapes, state.prefix, state.is_averaged, state.head
    content.beside                             {"epoch": 12, "arch": "resnet18", ...}

Checkpoints hold settings, paths, numbers of NumPy and whole models beside tensors. PyTorch's reader for weights alone
(`weights_only`) refuses all that it does not know. Here each such name stands for an inert object: the tensors are
found, and nothing that the file names is imported.
"""

import pickle
import pickletools
import re
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mar_tools.models.file_kinds import WEIGHTS, FileKind, find_kind
from mar_tools.models.shards import list_shards
from mar_tools.models.traces import explain_foreign
from vision_serving.errors import ConfigError, last_line

# What PyTorch's own wrappers put into names, wherever they stand; no layer is called so.
WRAPPERS = re.compile(r"(?:(?<=\.)|^)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
OUTER_NAMES = {"module", "model", "net", "network", "ema_model", "online_model", "student", "teacher", "backbone"}
AVERAGED = re.compile(r"(?:^|[._])(?:ema|swa|avg|averaged?|averaging|shadow|teacher)(?:$|[._])", re.IGNORECASE)
AVERAGED_COUNT = "n_averaged"  # of torch.optim.swa_utils.AveragedModel
NOT_WEIGHTS = re.compile(
    r"optim|^param_groups$|sched|scaler|_packed_params|(?:^|_)(?:rng|criterion|loss|losses|metrics?|callbacks|history)(?:$|_)",
    re.IGNORECASE,
)
DEEPEST = 4  # of a state dict in a file, and of settings
LONGEST_LIST = 25_000  # in a file: as many as a model may have labels, or weights
CLASS, ARGUMENTS = "inert class", "inert arguments"  # of an inert object, among its attributes
OLD_PICKLES = 4  # of torch.save before 1.6: magic number, protocol, machine, object


class InertValue:
    """Stands for an object of a file whose class is not imported, and of which nothing is needed."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __setstate__(self, _: Any) -> None: ...


def new_inert_class(name: str) -> type:
    """Return what stands for the class or function `name`: its objects are dicts that also keep their attributes.

    PyTorch's reader gives entries to plain dicts alone, and attributes to OrderedDicts.
    """

    class Inert:
        def __new__(cls, *arguments: Any, **_: Any) -> Any:
            made: OrderedDict[Any, Any] = OrderedDict()
            made.__dict__.update({CLASS: name, ARGUMENTS: arguments})
            return made

    return InertValue if name.startswith(("numpy.", "functools.")) else Inert


@dataclass(frozen=True)
class FoundState:
    """A state dict in a file. key: where it lies, dots between; empty where the file is it.

    tensors: names as the file has them, without those of PyTorch's wrappers, and weights with their masks applied.
    model_class: of a whole pickled model. is_masked: by torch.nn.utils.prune.
    """

    key: str
    tensors: Mapping[str, Tensor]
    model_class: str = ""
    is_masked: bool = False

    @cached_property
    def prefix(self) -> str:
        """Return what wrappers put before every name, such as `module.`; a guess, for no network is at hand."""
        names, prefix = [name for name in self.tensors if name != AVERAGED_COUNT], ""
        while names:
            first = names[0][len(prefix) :].partition(".")[0]
            longer = f"{prefix}{first}."
            if first not in OUTER_NAMES or not all(name.startswith(longer) for name in names):
                break
            prefix = longer
        return prefix

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return shapes by name, the prefix taken off."""
        found = self.tensors.items()
        return {name.removeprefix(self.prefix): tuple(values.shape) for name, values in found if name != AVERAGED_COUNT}

    @cached_property
    def is_averaged(self) -> bool:
        """Return whether it is an average over training (EMA, SWA), by its key or its counter."""
        return AVERAGED_COUNT in self.tensors or bool(AVERAGED.search(self.key))

    @cached_property
    def head(self) -> tuple[str, int] | None:
        """Return name and outputs of the last layer with a matrix, in a classifier its classes; None without one."""
        layers = [
            (name, shape[0]) for name, shape in self.shapes.items() if name.endswith("weight") and len(shape) == 2
        ]
        return (layers[-1][0].removesuffix("weight").removesuffix("."), layers[-1][1]) if layers else None


@dataclass(frozen=True)
class FileContent:
    """What a file holds.

    states: none of a program. beside: texts and numbers, and lists and dicts of them, by key. names: of all classes and
    functions that a file of torch.save names, as `module.name`; none of them was imported. of_training: keys of what a
    training goes on with, such as an optimizer.
    """

    path: Path
    kind: FileKind
    states: tuple[FoundState, ...] = ()
    beside: Mapping[str, Any] = field(default_factory=dict)
    names: frozenset[str] = frozenset()
    of_training: tuple[str, ...] = ()


def look_into(path: Path) -> FileContent:
    """Return what a file of a model holds, with all files of a model that it is a part or the index of.

    Raises ConfigError that says what it is where that is no model.
    """
    kind = find_kind(path)
    if kind not in WEIGHTS:
        return FileContent(path, kind)
    shards = list_shards(path)
    return _join_shards(path, kind, shards) if shards else _look_into_one(path, kind)


def _look_into_one(path: Path, kind: FileKind) -> FileContent:
    if kind == "safetensors":
        tensors, beside = _read_safetensors(path)
        return FileContent(path, kind, (new_state("", tensors),), beside)
    content, names = _read_torch_save(path)
    plain = _plain(content, 0) if isinstance(content, Mapping) else None
    beside = {key: value for key, value in (plain or {}).items() if not NOT_WEIGHTS.search(key)}
    return FileContent(path, kind, tuple(_find_states(content)), beside, frozenset(names), _keys_of_training(content))


def _keys_of_training(content: Any) -> tuple[str, ...]:
    keys = content if isinstance(content, Mapping) else ()
    return tuple(key for key in keys if isinstance(key, str) and NOT_WEIGHTS.search(key))


def _join_shards(path: Path, kind: FileKind, shards: list[Path]) -> FileContent:
    """Return the weights of all files of a model. Raises ConfigError where one holds other than a state dict."""
    tensors: dict[str, Tensor] = {}
    for shard in shards:
        content = _look_into_one(shard, kind)
        if [state.key for state in content.states] != [""]:
            raise ConfigError(f"{shard}: expected one state dict in each of the {len(shards)} files of a model")
        tensors |= content.states[0].tensors
    return FileContent(path, kind, (new_state("", tensors),))


def new_state(key: str, tensors: Mapping[str, Tensor], model_class: str = "") -> FoundState:
    """Return it with plain names. `weight_orig` and `weight_mask` become `weight`, as `prune.remove` makes it."""
    plain = {WRAPPERS.sub("", name): values for name, values in tensors.items()}
    masked = [name.removesuffix("_mask") for name in plain if name.endswith("_mask")]
    masked = [name for name in masked if f"{name}_orig" in plain]
    for name in masked:
        plain[name] = plain.pop(f"{name}_orig") * plain.pop(f"{name}_mask")
    return FoundState(key, plain, model_class, bool(masked))


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"{path}: damaged, or only a part of the file ({last_line(error)}); copy it again") from error


def _read_torch_save(path: Path) -> tuple[Any, set[str]]:
    names: set[str] = set()
    try:
        names = _list_names(path)
        try:
            return _load_inert(path, {name: new_inert_class(name) for name in names}), names
        except (TypeError, ValueError):  # an object keeps its attributes in another form, as one with __slots__ does
            return _load_inert(path, dict.fromkeys(names, InertValue)), names
    except Exception as error:  # a damaged file makes the unpickler raise anything
        raise ConfigError(f"{path}: {_explain_refusal(error, names)}") from error


def _load_inert(path: Path, classes: Mapping[str, type]) -> Any:
    with torch.serialization.safe_globals([(inert, name) for name, inert in classes.items()]):
        return torch.load(path, "cpu", weights_only=True)


def _list_names(path: Path) -> set[str]:
    """Return what the pickles of a file name, as `module.name`, that PyTorch knows or not."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            return {name for _ in range(OLD_PICKLES) for name in _names_in_pickle(file)}
    with zipfile.ZipFile(path) as archive:
        [record] = (name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1)
        with archive.open(record) as pickled:
            return set(_names_in_pickle(pickled))


def _names_in_pickle(file: IO[bytes]) -> Iterator[str]:
    for operation, argument, _ in pickletools.genops(file):
        if operation.name == "GLOBAL":
            module, name = str(argument).split(" ", 1)
            yield ".".join(NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name)))


def _explain_refusal(error: Exception, names: set[str]) -> str:
    said = " ".join(str(error.__context__ or error).split())[:160]  # without PyTorch's advice to trust the file
    if "is blocked" in said:
        return f"it would run code, which no weights need; load it nowhere ({said})"
    if explain_foreign(names):
        return explain_foreign(names)
    if "Unsupported operand" in said:
        return "written with another pickle_protocol than 2, which PyTorch reads as weights; save it with the default"
    if any(name.startswith("torch.nn.modules.") for name in names):
        return "a whole model in a form that is read by running its code; save model.state_dict() instead"
    if isinstance(error, pickle.UnpicklingError):
        return f"it holds what PyTorch does not read as weights ({said}); save model.state_dict() instead"
    return f"damaged, or not a weights file ({type(error).__name__}: {said})"


def _find_states(content: Any, keys: tuple[str, ...] = ()) -> list[FoundState]:
    """Return the state dicts in what a file holds: innermost dicts with tensors, and the modules of whole models."""
    parts = _module_parts(content)
    if parts is not None:
        return [new_state(".".join(keys), dict(_tensors_of_module(parts)), getattr(content, CLASS, ""))]
    if isinstance(content, (list, tuple)) and len(content) <= LONGEST_LIST:
        content = {str(index): value for index, value in enumerate(content)}
    if not isinstance(content, Mapping) or len(keys) > DEEPEST:
        return []
    entries = _entries_of(content)
    inner = [
        state
        for key, value in entries.items()
        if isinstance(key, str) and not NOT_WEIGHTS.search(key)
        for state in _find_states(value, (*keys, key))
    ]
    tensors = {key: value for key, value in entries.items() if isinstance(key, str) and isinstance(value, Tensor)}
    return inner or ([new_state(".".join(keys), tensors)] if tensors else [])


def _entries_of(content: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return the entries of a dict, and the attributes of an inert object."""
    attributes = vars(content) if hasattr(content, CLASS) else {}
    return {key: value for key, value in {**attributes, **content}.items() if key not in (CLASS, ARGUMENTS)}


def _module_parts(content: Any) -> Mapping[str, Any] | None:
    """Return the attributes of what was an nn.Module; None of anything else."""
    if not hasattr(content, CLASS):
        return None
    places = (vars(content), *getattr(content, ARGUMENTS))  # the second where torch.fx wrote the module
    return next((place for place in places if isinstance(place, dict) and "_modules" in place), None)


def _tensors_of_module(parts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield what `state_dict()` of a module would hold."""
    passing = parts.get("_non_persistent_buffers_set") or ()
    buffers = {name: values for name, values in parts["_buffers"].items() if name not in passing}
    for name, values in {**parts["_parameters"], **buffers}.items():
        if isinstance(values, Tensor):
            yield prefix + name, values
    for name, child in parts["_modules"].items():
        inner = _module_parts(child)
        if inner is not None:
            yield from _tensors_of_module(inner, f"{prefix}{name}.")


def _plain(value: Any, depth: int) -> Any:
    """Return texts and numbers, and lists and dicts of them; None for all else."""
    if isinstance(value, (str, int, float)):
        return value
    if depth > DEEPEST or _module_parts(value) is not None:
        return None
    if isinstance(value, (list, tuple)) and len(value) <= LONGEST_LIST:
        return [_plain(entry, depth + 1) for entry in value]
    if not isinstance(value, Mapping) or len(value) > LONGEST_LIST:
        return None
    entries = {str(key): _plain(entry, depth + 1) for key, entry in _entries_of(value).items()}
    return {key: entry for key, entry in entries.items() if entry is not None} or None
