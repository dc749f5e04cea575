"""The golden prediction of an export, from the verification image whose answer is clearest."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import PIL.Image
import torch

from mar_tools.archives.golden_prediction import GOLDEN, LEAST_IOUS, PICTURE, SCORE_TOLERANCES, Golden, GoldenEntry
from mar_tools.images import read_image
from mar_tools.verification.agreement import measure_overlaps
from mar_tools.verification.observations import Observation
from vision_serving.answers.responses import encode_response
from vision_serving.config import HandlerConfig, ImageLimits
from vision_serving.errors import RequestError
from vision_serving.handler import VisionHandler
from vision_serving.options import DetectionOptions
from vision_serving.pictures.decoding import decode_image
from vision_serving.requests.payload import Payload
from vision_serving.results.postprocessing import score_classes

LONGEST_SIDE = 512  # pixels; enough to know what is on it, and a few hundred kilobytes
PICTURE_FORMAT = "PNG"
TOP_K = 5
NEIGHBOUR_IOU = 0.3  # boxes of one class that overlap more may take each other's place in the NMS


def remove_golden(folder: Path) -> None:
    for name in (GOLDEN, PICTURE):
        (folder / name).unlink(missing_ok=True)


def write_golden(
    folder: Path,
    handler: VisionHandler,
    paths: Sequence[Path],
    observations: Sequence[Observation],
    options: dict[str, str] | None = None,
) -> None:
    """Write golden.json and golden.png into an export folder. observations: of the handler, one per path.

    options: of the prediction; None for those that show most.
    """
    options = choose_options(handler) if options is None else options
    chosen = max(range(len(paths)), key=lambda index: measure_clearness(handler, observations[index]))
    picture = encode_picture(handler, paths[chosen])
    (outcome,) = handler.predict([Payload(images=(picture,), options=options)])
    if isinstance(outcome.items[0], RequestError):  # its own limits refuse PNG, or pictures of this size
        return
    answer: dict[str, Any] = orjson.loads(encode_response(outcome).body)
    golden = Golden(
        options=options,
        found=tuple(_round(each) for each in answer.get("classes", answer.get("detections", []))),
        embedding=tuple(round(value, 4) for value in answer["embedding"]) if "embedding" in answer else None,
        score_threshold=find_score_threshold(handler.config),
        score_tolerance=SCORE_TOLERANCES[handler.config.precision],
        least_iou=LEAST_IOUS[handler.config.precision],
    )
    document = golden.model_dump(mode="json", exclude_none=True)
    (folder / GOLDEN).write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))
    (folder / PICTURE).write_bytes(picture)


def choose_options(handler: VisionHandler) -> dict[str, str]:
    """Choose the archive's defaults, but one threshold for all boxes, in pixels, of the whole picture."""
    if handler.config.task == "embedding":
        return {"normalize": "true"}
    if handler.config.task == "classification":
        labels = {"score_threshold": "0", "class_thresholds": ""} if handler.config.activation == "sigmoid" else {}
        return {"top_k": str(TOP_K), **labels}
    options = {"class_thresholds": "", "class_filter": "", "box_format": "xyxy", "tile_size": "0"}
    return {**options, "mask_format": "none"} if handler.config.instances == "masks" else options


def measure_clearness(handler: VisionHandler, seen: Observation) -> tuple[float, ...]:
    """Return a margin: the larger, the less can rounding change the answer to an image."""
    threshold = find_score_threshold(handler.config)
    if "embedding" in seen:
        return (float(seen["embedding"].norm()),)
    if threshold is None:
        best, second, *_ = [
            *score_classes(seen["logits"], handler.config.activation).topk(min(2, len(seen["logits"]))).values.tolist(),
            0.0,
        ]
        return (best - second,)
    return _clearness_of_boxes(seen, threshold, SCORE_TOLERANCES[handler.config.precision])


def _clearness_of_boxes(seen: Observation, threshold: float, tolerance: float) -> tuple[float, ...]:
    """Rate an image: clear boxes come first, then the fewest boxes that could come or go."""
    shown = seen["scores"] > threshold - tolerance
    scores, boxes, class_ids = (seen[name][shown] for name in ("scores", "boxes", "class_ids"))
    clear = scores >= threshold + tolerance
    if not clear.any():
        return (0.0, 0.0, 0.0)
    alike = class_ids[:, None] == class_ids[None, :]
    crowded = (measure_overlaps(boxes, boxes) > NEIGHBOUR_IOU) & alike & ~torch.eye(len(boxes), dtype=torch.bool)
    doubtful = (~clear | crowded.any(dim=1)).sum()
    return (1.0, -float(doubtful), float(scores[clear].min()))


def encode_picture(handler: VisionHandler, path: Path) -> bytes:
    """Encode it upright, without what a camera writes into its files, and small."""
    picture = PIL.Image.fromarray(decode_image(read_image(path), ImageLimits(), handler.config.colours))
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, PICTURE_FORMAT)
    return buffer.getvalue()


def find_score_threshold(config: HandlerConfig) -> float | None:
    """Return the detector's own; None for a classifier."""
    options = config.options_model.model_validate(config.options)
    return options.score_threshold if isinstance(options, DetectionOptions) else None


def _round(each: dict[str, Any]) -> GoldenEntry:
    """Round to far less than the tolerance, and so coarsely that a second build writes the same."""
    box = each.get("box")
    return GoldenEntry(
        class_id=each["class_id"],
        score=round(each["score"], 3),
        box=None if box is None else tuple(round(value, 1) for value in box),
    )
