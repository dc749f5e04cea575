"""Which form a model has, and who reads it."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path

from mar_tools.drafting.drafts import LABELS, NAMES_UNKNOWN, Draft, Hints, Noted, without_notes
from mar_tools.models.file_kinds import FileKind, find_kind
from vision_serving.errors import ConfigError

FORMS = (
    "a file (.pth, .pt, .ckpt, .pth.tar, .bin, .safetensors, .onnx, .mar)",
    "a folder of Hugging Face",
    "a name of torchvision or timm",
)
READERS: dict[FileKind, str] = {
    "safetensors": "mar_tools.drafting.state_drafts:draft_state",
    "torch.save": "mar_tools.drafting.state_drafts:draft_state",
    "torchscript": "mar_tools.drafting.torchscript_drafts:draft_torchscript",
    "onnx": "mar_tools.drafting.onnx_drafts:draft_onnx",
    "mar": "mar_tools.drafting.stock_archives:draft_archive",
}


def draft_recipe(model: str, hints: Hints) -> Draft:
    """Raises ConfigError for what cannot be read, and for a model of another task than the user's, with the reason."""
    draft = _read(model, hints)
    task = without_notes(draft.recipe["task"])
    if hints.task in (None, task):
        return draft
    if (task, hints.task) == ("classification", "embedding"):
        return _as_embedding(draft)
    raise ConfigError(f"{model}: a model of {task}, not of {hints.task}; leave out --task")


def _as_embedding(draft: Draft) -> Draft:
    """Return the recipe of a classifier for its features, which have no labels."""
    kept = {key: value for key, value in draft.recipe.items() if key not in ("labels", "options")}
    task = Noted("embedding", "what its last layer is given")
    files = {name: content for name, content in draft.files.items() if not name.endswith(LABELS)}
    notes = tuple(note for note in draft.notes if not note.startswith(NAMES_UNKNOWN))
    return replace(draft, recipe={**kept, "task": task}, files=files, notes=notes)


def _read(model: str, hints: Hints) -> Draft:
    from mar_tools.drafting.library_drafts import draft_folder, draft_published

    path = Path(model)
    if path.is_dir():
        return draft_folder(path.absolute(), hints)
    draft = None if path.exists() else draft_published(model, hints)
    if draft is not None:
        return draft
    if not path.exists():
        raise ConfigError(f"{model}: no such file, and no model of torchvision or timm; expected {', or '.join(FORMS)}")
    kind = find_kind(path)
    if kind not in READERS:
        raise ConfigError(
            f"{path}: a program of {kind}, which no source takes; save model.state_dict(), or export ONNX"
        )
    module, _, name = READERS[kind].partition(":")
    reader = getattr(import_module(module), name)
    read: Draft = reader(path.absolute(), hints)
    return read
