"""Model cards: of an archive, and as people read them. Nothing here needs PyTorch."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.table import Column, Table
from rich.text import Text

from mar_tools.archives.archive import extract_archive
from mar_tools.measures import name_measure
from mar_tools.terminal import new_table
from vision_serving.config import read_handler_config
from vision_serving.errors import ConfigError
from vision_serving.labels import read_labels
from vision_serving.worker.model_card import Card, build_card

NAMED = 10  # labels that a table lists


def read_card(archive: Path) -> Card:
    """Raises ConfigError for what is not an archive of this project."""
    with tempfile.TemporaryDirectory(prefix="vision-serving-") as temporary:
        folder = Path(temporary)
        extract_archive(archive, folder)
        if not (folder / "model-config.yaml").is_file():
            raise ConfigError(f"{archive}: no model-config.yaml inside; expected an archive of build_model.py")
        config = read_handler_config(folder / "model-config.yaml")
        return build_card(folder, config, read_labels(folder / config.labels))


def card_table(card: Card) -> Table:
    """Return one line for each of SHOWN that the card has something to say of; `--json` has the rest."""
    table = new_table(Column(style="bold", no_wrap=True), Column(overflow="fold"))
    table.show_header = False
    for title, show in SHOWN.items():
        text = show(card)
        if text:
            table.add_row(title, Text(text))
    return table


def _labels(card: Card) -> str:
    labels = card["labels"]
    return f"{card['num_classes']}: {', '.join(labels[:NAMED])}{', ...' if len(labels) > NAMED else ''}"


def _options(options: Mapping[str, Any]) -> str:
    return "\n".join(f"{name} = {option.get('default')}{_allowed(option)}" for name, option in options.items())


def _allowed(option: Mapping[str, Any]) -> str:
    if "enum" in option:
        return f"  ({', '.join(map(str, option['enum']))})"
    low, high = option.get("minimum", option.get("exclusiveMinimum")), option.get("maximum")
    return "" if low is None and high is None else f"  ({low} to {high})"


def _evidence(card: Card) -> str:
    evidence = card.get("verification", {})
    accuracy = evidence.get("accuracy", {}).get("candidate", {})
    figures = {name_measure(name): value for name, value in {**evidence.get("measured", {}), **accuracy}.items()}
    images = evidence.get("images", {})
    lines = [f"{images['count']} images, {images['source']}, beside {evidence['reference']}"] if images else []
    return "\n".join([*lines, *_lines(figures)])


def _baseline(card: Card) -> str:
    baseline = card.get("verification", {}).get("baseline", {})
    return "\n".join(_lines(baseline))


def _doubts(card: Card) -> str:
    evidence = card.get("verification", {})
    return "\n".join([*evidence.get("assumed", ()), *evidence.get("reading", {}).get("warnings", ())])


def _timing(card: Card) -> str:
    timing = card.get("verification", {}).get("timing", {})
    rates = {f"images/s, batch {size}": rate for size, rate in timing.get("images_per_s", {}).items()}
    rest = {name: value for name, value in timing.items() if name != "images_per_s"}
    return "\n".join(_lines({**rates, **rest}))


def _lines(values: Mapping[str, Any]) -> list[str]:
    return [f"{name} {_value(value)}" for name, value in values.items()]


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(_lines(value))
    if isinstance(value, list):
        return " ".join(map(_value, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _files(card: Card) -> str:
    """Return the files of the artifact: a file with its siblings of the same stem, or all in a folder."""
    stem = str(card["artifact"]).rpartition(".")[0] or str(card["artifact"])
    own = {name: file for name, file in card["files"].items() if name.startswith((f"{stem}.", f"{stem}/"))}
    return "\n".join(f"{name} {file['bytes']:,} bytes, SHA-256\n{file['sha256']}" for name, file in own.items())


SHOWN: dict[str, Callable[[Card], str]] = {
    "model": lambda card: f"{card.get('name', '')} {card.get('version', '')}, {card['task']}",
    "runs on": lambda card: f"{card['backend']} {card['precision']}",
    "device": lambda card: card.get("device", ""),
    "CPU features": lambda card: ", ".join(card["cpu_features"]),
    "classes": _labels,
    "preprocessing": lambda card: "\n".join(_lines(card["preprocessing"])),
    "options": lambda card: _options(card["options"]),
    "explanations": lambda card: _options(card.get("explanations", {})),
    "limits": lambda card: "\n".join(_lines(card["limits"])),
    "verified": _evidence,
    "before compression": _baseline,
    "assumed": _doubts,
    "timed": _timing,
    "versions": lambda card: ", ".join(f"{name} {version}" for name, version in card["versions"].items()),
    "artifact": _files,
}
