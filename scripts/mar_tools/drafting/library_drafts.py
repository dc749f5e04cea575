"""A name of torchvision or timm, or a folder of Hugging Face -> a recipe."""

from pathlib import Path
from typing import Any

from mar_tools.drafting.drafts import Draft, Hints, Noted, assume, choose_labels, name_of
from mar_tools.models.file_kinds import MANIFEST, check_is_file
from mar_tools.models.other_files import describe_folder
from vision_serving.errors import ConfigError
from vision_serving.options import Task
from vision_serving.validation import MOST_BYTES, read_json

CONFIG = "config.json"
HEADS: dict[str, Task] = {"ForImageClassification": "classification", "ForObjectDetection": "detection"}


def draft_published(name: str, hints: Hints) -> Draft | None:
    """Return a recipe of a model that torchvision or timm publishes; None for other names.

    Raises ConfigError for a link that leads to nothing.
    """
    if Path(name).is_symlink():
        check_is_file(Path(name))
    from torchvision import models  # seconds, which a refusal of a file does not need

    if name in models.list_models():
        return _draft_torchvision(name, hints)
    from mar_tools.models.sources import load_source

    architecture = name.partition(".")[0]
    timm = load_source("timm").timm
    if not timm.is_model(architecture):
        return None
    recipe: dict[str, Any] = {"name": hints.name or name.replace(".", "_"), "task": "classification"}
    known = timm.list_pretrained(f"{architecture}*")
    weights = "pretrained" if any(entry == name or entry.startswith(f"{name}.") for entry in known) else "random"
    line = weights if weights == "pretrained" else Noted(weights, "timm publishes no weights of this name")
    return Draft({**recipe, "model": {"source": "timm", "name": name, "weights": line}})


def _draft_torchvision(name: str, hints: Hints) -> Draft:
    from torchvision import models

    kinds: dict[Task, Any] = {"classification": models, "detection": models.detection}
    task = next((task for task, module in kinds.items() if name in models.list_models(module=module)), None)
    if task is None:
        raise ConfigError(f"{name} of torchvision is no classifier or detector of pictures")
    published = models.get_model_weights(name)
    weights = Noted(published.DEFAULT.name, f"the best that torchvision has of {sorted(published.__members__)}")
    model = {"source": "torchvision", "name": name, "weights": weights}
    return Draft({"name": hints.name or name, "task": task, "model": model})


def draft_folder(folder: Path, hints: Hints) -> Draft:
    """Return the recipe of a folder with a `config.json` of transformers or timm, or of a stock archive as a folder.

    Raises ConfigError for others.
    """
    if (folder / MANIFEST).is_file():
        from mar_tools.drafting.stock_archives import draft_archive

        return draft_archive(folder, hints)
    if not (folder / CONFIG).is_file():
        what = describe_folder(folder)
        raise ConfigError(f"{folder}: {what or f'no {CONFIG} in it; name the weights file itself'}")
    config = read_json(folder / CONFIG, most_bytes=MOST_BYTES)
    if isinstance(config, dict) and isinstance(config.get("architecture"), str):
        return _draft_timm_folder(folder, config, hints)
    names = config.get("architectures") if isinstance(config, dict) else None
    architecture = str(names[0]) if isinstance(names, list) and names else ""
    task = next((task for head, task in HEADS.items() if architecture.endswith(head)), None)
    if task is None:
        raise ConfigError(
            f"{folder}/config.json: architectures {names}; expected one that ends with {sorted(HEADS)}, as other heads "
            "are not served"
        )
    notes = []
    recipe: dict[str, Any] = {
        "name": name_of(folder, hints),
        "task": Noted(task, f"{architecture} of config.json"),
        "model": {"source": "huggingface", "name": folder, "weights": "pretrained"},
    }
    if not (folder / "preprocessor_config.json").is_file():
        size = config.get("image_size") if isinstance(config.get("image_size"), int) else 224
        recipe["preprocessing"] = {
            "resize": {"mode": "exact", "size": assume([size, size], "image_size of config.json, or 224")},
            "mean": assume([0.5, 0.5, 0.5], "as ViT has it"),
            "std": [0.5, 0.5, 0.5],
        }
        notes.append("its preprocessing, as the folder has no preprocessor_config.json")
    if hints.labels:
        recipe["labels"] = hints.labels.absolute()
    elif str(config.get("id2label", {}).get("0", "LABEL_0")) == "LABEL_0":
        notes.append("the names of its classes: config.json has LABEL_0 and so on; give --labels FILE")
    return Draft(recipe, {}, tuple(notes))


def _draft_timm_folder(folder: Path, config: dict[str, Any], hints: Hints) -> Draft:
    """Return that of a folder as timm's `save_for_hf` writes it."""
    weights = next(
        (folder / name for name in ("model.safetensors", "pytorch_model.bin") if (folder / name).is_file()), None
    )
    if weights is None:
        raise ConfigError(f"{folder}: no model.safetensors or pytorch_model.bin in it")
    data = config.get("pretrained_cfg", {})
    where = "pretrained_cfg of config.json"
    name = name_of(folder, hints)
    classes = config.get("num_classes")
    labels = choose_labels(name, hints, _label_names(config), classes, "label_names of config.json")
    model: dict[str, Any] = {"source": "timm", "name": Noted(config["architecture"], "config.json")}
    arguments = {**config.get("model_args", {}), "num_classes": classes}
    recipe = {"name": name, "task": "classification", "model": {**model, "arguments": arguments, "weights": weights}}
    return Draft({**recipe, "labels": labels.value, **_preprocessing(data, where)}, labels.files, labels.notes)


def _label_names(config: dict[str, Any]) -> list[str] | None:
    names, descriptions = config.get("label_names"), config.get("label_descriptions")
    if not isinstance(names, list):
        return None
    return [str(descriptions.get(name, name)) if isinstance(descriptions, dict) else str(name) for name in names]


def _preprocessing(data: dict[str, Any], where: str) -> dict[str, Any]:
    if not {"input_size", "mean", "std"} <= data.keys():
        return {}
    _, height, width = data["input_size"]
    share = data.get("crop_pct") or 0.875
    return {
        "preprocessing": Noted(
            {
                "resize": {"mode": "shortest_edge", "size": int(height / share)},
                "crop": [height, width],
                "interpolation": data.get("interpolation", "bicubic"),
                "mean": list(data["mean"]),
                "std": list(data["std"]),
            },
            where,
        )
    }
