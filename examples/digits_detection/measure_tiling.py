"""Measure what tiles find in large scenes that one pass misses, and what they cost; write tiling_results.json.

From the repository's root, after `python scripts/build_model.py examples/digits_detection/recipe.yaml`:

    python examples/digits_detection/measure_tiling.py model_store/digits_detection.mar

Scenes of 1600 x 1200 pixels with 40 test digits each, through the same handler that a server runs, on one core. Times
are CPU times, which other work on the machine hardly changes.
"""

import argparse
import io
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.detection import MeanAveragePrecision
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from examples.digits import load_digit_split
from examples.digits_detection.large_scenes import DIGITS, SIZE_HW, draw_large_scene
from examples.digits_detection.scenes import Scene
from examples.training import describe_environment, write_json
from mar_tools.archives.archive import extract_archive
from mar_tools.verification.observations import load_handler
from vision_serving.config import ImageLimits
from vision_serving.cores import ThreadPlan
from vision_serving.geometry import ImageGeometry, Region
from vision_serving.handler import VisionHandler
from vision_serving.options import DetectionOptions, Options
from vision_serving.predictions import Detections, Prediction
from vision_serving.requests.payload import Payload
from vision_serving.results.postprocessing import intersect, measure_areas, measure_iou
from vision_serving.results.tile_merging import BORDER, merge_tiles

RESULTS = Path(__file__).resolve().parent / "tiling_results.json"
SEED = 2_000_003  # far from those of the training and its test
SCENES = 10
SCORE_THRESHOLD = 0.05
MAX_TILES = 128  # tiles of 200 pixels are 80; the default limit is 64
EXTENTS = {"16 to 40": (16, 40), "16 to 320": (16, 320)}  # of the long side of a digit, in pixels of the scene
TILE_SIZES = (0, 640, 320, 256, 200)
ONE_CORE = ThreadPlan(engine=1, decode=1, pin=False)
RULES_AT = 256

Parts = tuple[Sequence[Detections], Sequence[Region]]
Truth = dict[str, torch.Tensor]
FloatArray = NDArray[np.float32]


def measure_ios(first: FloatArray, second: FloatArray) -> FloatArray:
    """Intersection over the smaller area, with which SAHI merges by default."""
    smaller: FloatArray = np.minimum(measure_areas(first), measure_areas(second))
    ios: FloatArray = intersect(first, second) / np.maximum(smaller, np.float32(1e-6))
    return ios


# How answers of tiles can become one: (cut boxes are dropped, measure of two boxes that are one object).
RULES = {
    "cut boxes dropped, IoU": (BORDER, measure_iou),
    "cut boxes dropped, IoS": (BORDER, measure_ios),
    "cut boxes kept, IoU": (-1.0, measure_iou),
    "cut boxes kept, IoS": (-1.0, measure_ios),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--scenes", type=int, default=SCENES, help=f"of each kind (default: {SCENES})")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        extract_archive(arguments.archive, Path(folder))
        handler = load_handler(Path(folder), ONE_CORE, ImageLimits(max_tiles=MAX_TILES))
        kinds = {name: measure_kind(handler, extents, arguments.scenes) for name, extents in EXTENTS.items()}
    figures = {
        "size_hw": SIZE_HW,
        "digits": DIGITS,
        "scenes": arguments.scenes,
        "seed": SEED,
        "score_threshold": SCORE_THRESHOLD,
        "tile_overlap": DetectionOptions().tile_overlap,
        "backend": handler.config.backend,
        "precision": handler.config.precision,
        **describe_environment(),
        "long_side_px": kinds,
    }
    write_json(RESULTS, figures)
    print(RESULTS)


def measure_kind(handler: VisionHandler, extents: tuple[int, int], count: int) -> dict[str, Any]:
    """Figures for scenes with digits of one range of sizes: one pass, tiles of several sizes, rules of merging."""
    _, digits = load_digit_split()
    scenes = [draw_large_scene(digits, extents, np.random.default_rng([SEED, number])) for number in range(count)]
    truth = [
        {"boxes": torch.from_numpy(scene.boxes_xyxy), "labels": torch.from_numpy(scene.class_ids)} for scene in scenes
    ]
    runs, rules = [], {}
    for size in tqdm(TILE_SIZES, desc=f"digits of {extents[0]} to {extents[1]} px", disable=None):
        found, parts, seconds = predict_scenes(handler, scenes, size)
        row = {"tile_size": size, "passes": len(parts[0][1]), "cpu_ms": round(seconds * 1000)}
        runs.append({**row, **measure_map(found, truth)})
        if size == RULES_AT:
            rules = {name: measure_map(merge(parts, *rule), truth) for name, rule in RULES.items()}
    return {"runs": runs, "rules": rules}


def predict_scenes(
    handler: VisionHandler, scenes: Sequence[Scene], tile_size: int
) -> tuple[list[Detections], list[Parts], float]:
    """The answers, what each of their passes gave, and the median of the CPU seconds of an image."""
    options = {"score_threshold": SCORE_THRESHOLD, "tile_size": tile_size}
    join, found, seconds = handler.join, [], []
    parts: list[Parts] = []

    def remember(predictions: Sequence[Prediction], geometries: Sequence[ImageGeometry], chosen: Options) -> Prediction:
        passes = [prediction for prediction in predictions if isinstance(prediction, Detections)]
        parts.append((passes, [geometry.seen for geometry in geometries]))
        return join(predictions, geometries, chosen)

    handler.join = remember  # type: ignore[method-assign, assignment]
    for scene in scenes:
        encoded = io.BytesIO()
        scene.image.save(encoded, "JPEG", quality=95)
        started = time.process_time()
        (item,) = handler.predict([Payload((encoded.getvalue(),), options)])[0].items
        seconds.append(time.process_time() - started)
        if not isinstance(item, Detections):
            raise RuntimeError(f"no answer: {item}")
        found.append(item)
    handler.join = join  # type: ignore[method-assign]
    return found, parts, median(seconds)


def merge(parts: Sequence[Parts], border: float, measure: Any) -> list[Detections]:
    return [merge_tiles(*passes, DetectionOptions(), border, measure) for passes in parts]


def measure_map(found: Sequence[Detections], truth: Sequence[Truth]) -> dict[str, float]:
    """mAP at IoU 0.5 and its mean over 0.5 to 0.95."""
    metric = MeanAveragePrecision()
    metric.update([to_tensors(each) for each in found], list(truth))
    figures = metric.compute()
    return {"map_50": round(float(figures["map_50"]), 4), "map_50_95": round(float(figures["map"]), 4)}


def to_tensors(found: Detections) -> Truth:
    return {
        "boxes": torch.tensor([each.box for each in found.detections]).reshape(-1, 4),
        "scores": torch.tensor([each.score for each in found.detections]),
        "labels": torch.tensor([each.class_id for each in found.detections], dtype=torch.int64),
    }


if __name__ == "__main__":
    main()
