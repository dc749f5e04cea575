"""Which form a model has, and who reads it."""

from collections.abc import Callable
from pathlib import Path

from mar_tools.drafting.drafts import Draft, Hints
from vision_serving.errors import ConfigError

WEIGHTS = (".pth", ".pt", ".ckpt", ".tar", ".bin", ".safetensors")
FORMS = (
    "a file (.pth, .pt, .ckpt, .pth.tar, .bin, .safetensors, .onnx, .mar)",
    "a folder of Hugging Face",
    "a name of torchvision or timm",
)


def draft_recipe(model: str, hints: Hints) -> Draft:
    """Raises ConfigError for what cannot be read, with the reason."""
    path = Path(model)
    if path.is_dir():
        from mar_tools.drafting.library_drafts import draft_folder

        return draft_folder(path, hints)
    if not path.exists():
        from mar_tools.drafting.library_drafts import draft_published

        draft = draft_published(model, hints)
        if draft is None:
            raise ConfigError(
                f"{model}: no such file, and no model of torchvision or timm; expected {', or '.join(FORMS)}"
            )
        return draft
    return choose_reader(path)(path.absolute(), hints)


def choose_reader(path: Path) -> Callable[[Path, Hints], Draft]:
    """Choose by what is in a file, then by its suffix. Raises ConfigError for other files."""
    suffix = path.suffix.lower()
    if suffix == ".mar":
        from mar_tools.drafting.stock_archives import draft_archive

        return draft_archive
    if suffix == ".onnx":
        from mar_tools.drafting.onnx_drafts import draft_onnx

        return draft_onnx
    from mar_tools.drafting.torchscript_drafts import draft_torchscript, is_torchscript

    if is_torchscript(path):
        return draft_torchscript
    if suffix in WEIGHTS:
        from mar_tools.drafting.state_drafts import draft_state

        return draft_state
    raise ConfigError(f"{path}: no form that is read here; expected {', or '.join(FORMS)}")
