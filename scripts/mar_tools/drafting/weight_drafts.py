"""Weights -> a recipe of the architecture that they fit."""

from pathlib import Path

from mar_tools.drafting.architectures import (
    Architecture,
    Shapes,
    find_alike,
    find_named_architectures,
    find_nearest,
    fit_architecture,
    is_published,
    published_labels,
    search_architectures,
    without_counters,
)
from mar_tools.drafting.drafts import Draft, Hints, Noted, assume, choose_labels, name_of
from mar_tools.drafting.library_drafts import CONFIG
from mar_tools.models.traces import find_trace
from mar_tools.models.weight_files import FileContent, FoundState, look_into
from mar_tools.models.weights import check_holds_weights
from mar_tools.terminal import show_work
from vision_serving.errors import ConfigError
from vision_serving.validation import MOST_BYTES, read_json


def draft_weights(path: Path, hints: Hints) -> Draft:
    """Raises ConfigError for a file that is no state dict, and for one that fits no architecture that is known."""
    content = look_into(path)
    check_holds_weights(content)
    state, weights_key, key_notes = choose_state(content)
    shapes = without_counters(state.shapes)
    found = find_architectures(shapes, path, hints.architecture)
    if not found:
        raise ConfigError(f"{path}: {describe_strangers(shapes, hints.architecture)}")
    best, *others = found
    name = name_of(path, hints)
    names, where = published_labels(best)
    labels = choose_labels(name, hints, names, best.classes, where)
    also = ", ".join(f"{other.library} {other.name}" for other in others[:6])
    why = f"all {len(shapes)} tensors fit" + (f"; they also fit {also}" if also else "")
    notes = [
        *key_notes,
        *labels.notes,
        "size, mean and std of its training; `auto` is what the library publishes with the model",
    ]
    if also:
        notes.append(f"which of these it was: {best.library} {best.name}, {also}; give --architecture NAME")
    recipe = {
        "name": name,
        "task": best.task,
        "model": {
            "source": best.library,
            "name": Noted(best.name, why),
            **({"arguments": best.arguments} if best.arguments else {}),
            "weights": path,
            **weights_key,
        },
        "labels": labels.value,
        "preprocessing": assume("auto", f"what {best.library} publishes with {best.name}"),
    }
    return Draft(recipe, labels.files, tuple(notes))


def choose_state(content: FileContent) -> tuple[FoundState, dict[str, Noted], list[str]]:
    """Return the weights of a file, and what to say where it has several. An average of the training comes first."""
    chosen = next((state for state in content.states if state.is_averaged), content.states[0])
    if len(content.states) == 1:
        return chosen, {}, []
    others = [state.key for state in content.states if state is not chosen]
    kind = "the average over the training" if chosen.is_averaged else "the first"
    note = f"which weights of the file are meant: {chosen.key} was taken ({kind}), there are also {', '.join(others)}"
    return chosen, {"weights_key": assume(chosen.key, f"{kind}; there are also {', '.join(others)}")}, [note]


def find_architectures(shapes: Shapes, path: Path, asked: str | None) -> list[Architecture]:
    """Return the models that fit: the one that is asked for, those that the file's name names, else all that do.

    Raises ConfigError where something else is to be done, before the search, which takes long.
    """
    if asked is not None:
        return fit_architecture(shapes, asked)
    trace = find_trace(shapes)
    if trace is not None:
        raise ConfigError(f"{path}: {trace}")
    named = find_named_architectures(shapes, path.name)
    if named:
        return named
    check_is_no_part(path)
    with show_work(
        f"comparing {len(shapes)} tensors with every model of torchvision and timm, for up to half a minute; "
        "--architecture NAME would name the one"
    ):
        return search_architectures(shapes)


def check_is_no_part(path: Path) -> None:
    """Raises ConfigError for weights that lie beside the configuration of their network, as Hugging Face saves them."""
    config = path.with_name(CONFIG)
    if config.is_file() and {"architectures", "architecture"} & set(read_json(config, most_bytes=MOST_BYTES)):
        raise ConfigError(f"{path}: {CONFIG} beside it tells of what network it is; name the folder, {path.parent}")


def describe_strangers(shapes: Shapes, asked: str | None) -> str:
    """Say what was found in place of a known architecture, and what to do."""
    if asked is not None and is_published(asked):
        return f"its {len(shapes)} tensors do not fit {asked}"
    if asked is not None:
        near = ", ".join(find_alike(asked))
        return (
            f"--architecture {asked}: no model of torchvision or timm has this name{near and f'; near to it: {near}'}"
        )
    nearest = find_nearest(shapes)
    first = ", ".join(list(shapes)[:3])
    python = "use `source: python` with the file of its class (docs/use/own_models.md)"
    if nearest is None:
        return (
            f"no model of torchvision or timm has its {len(shapes)} tensors ({first}, ...); name the one with "
            f"--architecture, or {python}"
        )
    strangers = ", ".join(f"{name} {shapes[name]}" for name in nearest.strangers[:4])
    return (
        f"{nearest.fitting} of its {len(shapes)} tensors fit {nearest.library} {nearest.name}, and {strangers} do not: "
        f"it was changed; {python}"
    )
