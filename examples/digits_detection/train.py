"""Train the digit detector on drawn scenes; write weights, figures and samples.

From the repository's root:

    python examples/digits_detection/train.py
"""

import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics.detection import MeanAveragePrecision
from torchvision.ops import batched_nms

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from examples.digits import LABELS, Digits, load_digit_split
from examples.digits_detection.detector import DigitDetector
from examples.digits_detection.loss import compute_detection_loss
from examples.digits_detection.scenes import draw_example, draw_scene
from examples.training import (
    DrawnDataset,
    describe_environment,
    fit,
    normalise,
    parse_arguments,
    prepare_torch,
    save_weights,
    write_json,
)

FOLDER = Path(__file__).resolve().parent
EPOCHS = 20
SCENES_PER_EPOCH = 1000
TEST_SCENES = 400
TEST_SEED = 1_000_003  # far from any training seed; the same test scenes for all of them
BATCH_SIZE = 16
LEARNING_RATE = 2e-3
SCORE_THRESHOLD = 0.05
IOU_THRESHOLD = 0.5
MAX_DETECTIONS = 100
SAMPLES = 4

Batch = tuple[Tensor, list[tuple[Tensor, Tensor]]]
Detections = dict[str, Tensor]


def main() -> None:
    arguments = parse_arguments(__doc__, EPOCHS, FOLDER)
    train_digits, test_digits = load_digit_split()
    prepare_torch(arguments.seed)
    detector = DigitDetector().to(memory_format=torch.channels_last)
    batches = load_scenes(train_digits, arguments.epochs * SCENES_PER_EPOCH, arguments.seed)
    seconds = fit(detector, batches, compute_loss, LEARNING_RATE)
    figures = {
        **evaluate(detector, load_scenes(test_digits, TEST_SCENES, TEST_SEED)),
        "train_digits": len(train_digits),
        "test_digits": len(test_digits),
        "train_scenes": arguments.epochs * SCENES_PER_EPOCH,
        "test_scenes": TEST_SCENES,
        "seed": arguments.seed,
        "epochs": arguments.epochs,
        "training_s": round(seconds),
        **describe_environment(),
    }
    write_example(arguments.output, detector, figures, test_digits)
    print("\n".join(f"{name:14} {value}" for name, value in figures.items()))


def load_scenes(digits: Digits, count: int, seed: int) -> DataLoader[Any]:
    scenes = DrawnDataset(partial(draw_example, digits=digits), count, seed)
    return DataLoader(scenes, BATCH_SIZE, num_workers=2, collate_fn=collate)


def collate(scenes: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Batch:
    """Images (N, 256, 256, 3) uint8, and boxes and class ids of each."""
    images = torch.from_numpy(np.stack([image for image, _, _ in scenes]))
    return images, [(torch.from_numpy(boxes), torch.from_numpy(class_ids)) for _, boxes, class_ids in scenes]


def compute_loss(detector: DigitDetector, batch: Batch) -> Tensor:
    images, truth = batch
    logits, boxes = detector.predict_logits(normalise(images))
    return compute_detection_loss(logits, boxes, detector.points, detector.strides, truth)


@torch.inference_mode()
def evaluate(detector: DigitDetector, batches: DataLoader[Any]) -> dict[str, float]:
    """mAP at IoU 0.5 and its mean over 0.5 to 0.95, after NMS within each class."""
    metric = MeanAveragePrecision()
    for images, truth in batches:
        outputs = detector(normalise(images))
        detections = [select_detections(*pair) for pair in zip(outputs["boxes"], outputs["scores"], strict=True)]
        metric.update(detections, [{"boxes": boxes, "labels": class_ids} for boxes, class_ids in truth])
    figures = metric.compute()
    return {"map_50": round(float(figures["map_50"]), 4), "map_50_95": round(float(figures["map"]), 4)}


def select_detections(boxes: Tensor, scores: Tensor) -> Detections:
    """Every class of every point above the threshold, then NMS within classes, the best MAX_DETECTIONS.

    boxes: (Q, 4) xyxy. scores: (Q, C).
    """
    numbers, class_ids = (scores > SCORE_THRESHOLD).nonzero(as_tuple=True)
    kept_boxes, kept_scores = boxes[numbers], scores[numbers, class_ids]
    kept = batched_nms(kept_boxes, kept_scores, class_ids, IOU_THRESHOLD)[:MAX_DETECTIONS]
    return {"boxes": kept_boxes[kept], "scores": kept_scores[kept], "labels": class_ids[kept]}


def write_example(folder: Path, detector: DigitDetector, figures: dict[str, Any], test_digits: Digits) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(detector, folder / "weights.safetensors")
    write_json(folder / "results.json", figures)
    write_json(folder / "labels.json", LABELS)
    write_samples(folder / "samples", test_digits)


def write_samples(folder: Path, digits: Digits) -> None:
    """Scenes of test digits in their own sizes, and truth.json with their boxes in pixels."""
    folder.mkdir(exist_ok=True)
    truth = {}
    for number in range(1, SAMPLES + 1):
        scene = draw_scene(digits, np.random.default_rng([TEST_SEED, TEST_SCENES + number]))
        name = f"scene_{number}.jpg"
        scene.image.save(folder / name, quality=95)
        labels = [LABELS[class_id] for class_id in scene.class_ids]
        truth[name] = {"boxes_xyxy": scene.boxes_xyxy.astype(int).tolist(), "labels": labels}
    write_json(folder / "truth.json", truth)


if __name__ == "__main__":
    main()
