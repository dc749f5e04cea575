"""How programs of known families prepare pictures, where a model's file does not tell it: `new_recipe.py --like NAME`.

opencv      what cv2.imread gives, blue first, goes to the network as it is; a letterbox fills up with black, right
            and below (cv2.copyMakeBorder)
paddleocr   predict_cls.py of PaddleOCR: lines of text of one height, scaled by 0.5 and 0.5, blue first, filled up
            on the right
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mar_tools.drafting.drafts import Draft, Hint, Noted, without_notes
from vision_serving.errors import ConfigError

Preprocessing = dict[str, Any]
PADDLE_LINES = {
    "resize": {"mode": "fixed_height", "size": [48, 192], "pad_value": 127},
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "color_order": "bgr",
    "antialias": False,
}


def apply_convention(draft: Draft, like: str | None) -> Draft:
    """Return the draft with the preprocessing of a family. Raises ConfigError for a recipe that has none of its own."""
    if like is None:
        return draft
    if not isinstance(draft.recipe.get("preprocessing"), Mapping):
        raise ConfigError(f"--like {like}: the file states its preprocessing itself; give no --like")
    changed = LIKE[like](dict(draft.recipe["preprocessing"]), f"as --like {like} says")
    return replace(draft, recipe={**draft.recipe, "preprocessing": changed}, hints=())


def _like_opencv(preprocessing: Preprocessing, why: str) -> Preprocessing:
    resize = dict(preprocessing["resize"])
    if without_notes(resize["mode"]) == "letterbox":
        resize |= {"pad_place": Noted("top_left", why), "pad_value": Noted(0, why)}
    return {**preprocessing, "resize": resize, "color_order": Noted("bgr", why)}


def _like_paddleocr(_: Preprocessing, why: str) -> Preprocessing:
    return {key: Noted(value, why) for key, value in PADDLE_LINES.items()}


LIKE = {"opencv": _like_opencv, "paddleocr": _like_paddleocr}


def find_hints(task: str, preprocessing: Mapping[str, Any], may_read_lines: bool = False) -> tuple[Hint, ...]:
    """Return the families that may fit. may_read_lines: the graph is Paddle's and takes pictures of any size."""
    hints = []
    if task == "classification" and may_read_lines:
        hints.append(Hint("paddleocr", "its graph is Paddle's; where it is PaddleOCR's classifier of lines of text"))
    plain = without_notes(preprocessing)
    if task == "detection" and plain.get("color_order", "rgb") == "rgb":
        place = ", and lays them at the top left on black" if plain["resize"]["mode"] == "letterbox" else ""
        hints.append(Hint("opencv", f"where its own program feeds pictures as OpenCV reads them{place}"))
    return tuple(hints)
