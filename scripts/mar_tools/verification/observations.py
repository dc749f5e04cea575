"""What a handler sees in images. The reference's observations are kept on disk: ten candidates run eager once."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import orjson
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mar_tools.archives.digests import digest_config
from mar_tools.command_line import HANDLERS as HANDLER_SOURCES
from mar_tools.exporting.export_folders import hash_artifact
from mar_tools.exporting.signal_to_noise import score_profile
from mar_tools.images import read_image
from mar_tools.machine import package_versions
from mar_tools.models.handlers_by_task import new_handler
from mar_tools.verification.instance_agreement import observe_instances
from vision_serving.config import HandlerConfig, ImageLimits, read_handler_config
from vision_serving.cores import ThreadPlan
from vision_serving.errors import BackendError, ConfigError
from vision_serving.handler import VisionHandler
from vision_serving.options import DetectionOptions, MultiLabelOptions, Task
from vision_serving.pictures.decoding import Image, Shrink, decode_image
from vision_serving.pictures.preparation import find_shrink
from vision_serving.pictures.resizing import ImageBatch, model_hw
from vision_serving.results.postprocessing import find_thresholds, read_candidates, select_detections

# Of one image. A classifier's: `logits` (C,), and with independent scores the `thresholds` (C,) above which a class is
# answered. `embedding` (D,). A detector's: after NMS, best first, of any score, `boxes` (K, 4) xyxy in
# model pixels, `source_boxes` (K, 4) in pixels of the image, `scores` (K,), `class_ids` (K,). Before NMS
# `score_profile` (R,), `mean_score` (), `score_range` (2,), `raw_boxes` (B, 4) with the `raw_scores` (B,) of the best.
# `size_hw` (2,) of the model's pixels.
# Of a reference's first pictures, mirrored left to right: `mirrored_boxes` (B, 4) and `mirrored_scores` (B,), likewise.
# Where it has them, masks, keypoints or corners of the first of those, see `instance_agreement.observe_instances`.
Observation = Mapping[str, Tensor]

REFERENCE_PACKAGES = ("torch", "torchvision", "timm", "transformers", "onnxruntime")  # what a reference runs on
KEPT_OBSERVATIONS = "reference-observations.safetensors"
BATCH = 4
RAW_BOXES = 100
MIRRORED = 8  # pictures
DROPPED = -1.0  # the score of rows that are no candidates: of our own graphs, and of others that pad


def load_handler(folder: Path, threads: ThreadPlan | None = None, limits: ImageLimits | None = None) -> VisionHandler:
    """Return the handler of an export folder, loaded as a worker would load it, on the device that it was exported for.

    threads, limits: as of VisionHandler.load. Raises ConfigError or BackendError.
    """
    config = read_handler_config(folder / "model-config.yaml")
    on_gpu = config.device_type == "cuda"
    if on_gpu and not torch.cuda.is_available():
        raise BackendError(f"{folder}: exported for a GPU, and PyTorch finds none here")
    handler = new_handler(config.task)
    handler.load(folder, torch.device("cuda:0" if on_gpu else "cpu"), threads, limits)
    return handler


def observe(handler: VisionHandler, paths: Sequence[Path], *, whole: bool = False) -> list[Observation]:
    """Return one observation per image. whole: decoded at full size, whatever the handler may do."""
    observe_batch = OBSERVERS[handler.config.task]
    observations: list[Observation] = []
    for images in _batches(handler, paths, None if whole else find_shrink(handler.config)):
        batch = handler.preprocess(images)
        observations += observe_batch(handler, batch, handler.inference(batch))
    return observations


def observe_mirrored(handler: VisionHandler, paths: Sequence[Path]) -> list[Observation]:
    """Return what a detector has before NMS of images whose model pixels are mirrored left to right, one per image."""
    observations: list[Observation] = []
    for images in _batches(handler, paths, None):
        batch = handler.preprocess(images)
        outputs = handler.inference(replace(batch, pixels=batch.pixels.flip(2)))
        for boxes, scores in zip(outputs["boxes"], outputs["scores"], strict=True):
            seen = observe_candidates(boxes.float(), scores.float())
            observations.append({"mirrored_boxes": seen["raw_boxes"], "mirrored_scores": seen["raw_scores"]})
    return observations


def observe_reference(folder: Path, paths: Sequence[Path]) -> list[Observation]:
    """Return a reference's observations, from disk if nothing changed. Raises ConfigError without the reference."""
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no reference to compare with; export backend eager first")
    kept, key = folder.parent / KEPT_OBSERVATIONS, _key(folder, paths)
    observations = _read_kept(kept, key)
    if observations is None:
        handler = load_handler(folder)
        observations = observe(handler, paths, whole=True)
        if handler.config.task == "detection":
            mirrored = observe_mirrored(handler, paths[:MIRRORED])
            observations[:MIRRORED] = [{**one, **other} for one, other in zip(observations, mirrored, strict=False)]
        _keep(observations, kept, key)
    return observations


def hash_config(folder: Path, config: HandlerConfig) -> str:
    """Hash what decides, beside the artifact, which answer an archive gives: its `handler` section and labels."""
    return digest_config(config, (folder / config.labels).read_bytes())


def _batches(handler: VisionHandler, paths: Sequence[Path], shrink: Shrink | None) -> Iterator[list[Image]]:
    """Yield neighbours that share a model size, a few at a time, decoded only then.

    The first one alone: some runtimes compile or plan a batch of one apart from all others.
    """
    colours = handler.config.colours
    decoded = (decode_image(read_image(path), ImageLimits(), colours, shrink) for path in paths)
    limit = 1
    for _, alike in groupby(decoded, lambda image: model_hw(image.shape[:2], handler.config.preprocessing)):
        images: list[Image] = []
        for image in alike:
            images.append(image)
            if len(images) == limit:
                yield images
                images, limit = [], BATCH
        if images:
            yield images


def _observe_classes(handler: VisionHandler, batch: ImageBatch, outputs: Mapping[str, Tensor]) -> list[Observation]:
    options = handler.read_options({})
    seen = [{"logits": logits.float().clone()} for logits in outputs["logits"]]
    if isinstance(options, MultiLabelOptions):
        class_ids = torch.arange(outputs["logits"].shape[1])
        thresholds = find_thresholds(class_ids, options.score_threshold, options.class_thresholds)
        for observation in seen:
            observation["thresholds"] = thresholds.repeat(len(class_ids) // thresholds.numel())
    return list(seen)


def _observe_vectors(handler: VisionHandler, batch: ImageBatch, outputs: Mapping[str, Tensor]) -> list[Observation]:
    return [{"embedding": vector.float().clone()} for vector in outputs["embedding"]]


def _observe_boxes(handler: VisionHandler, batch: ImageBatch, outputs: Mapping[str, Tensor]) -> list[Observation]:
    options = handler.read_options({})  # with the labels of a class_filter resolved
    assert isinstance(options, DetectionOptions)
    options = options.model_copy(update={"score_threshold": 0.0, "class_thresholds": {}})  # which Soft-NMS asks for
    observations: list[Observation] = []
    for index, geometry in enumerate(batch.geometries):
        # NMS looks only upwards: what it keeps above any threshold are the first of these.
        best = select_detections(read_candidates(outputs, index, 0.0, handler.config.candidates_per_class), options)
        observations.append(
            {
                "boxes": best.boxes,
                "source_boxes": geometry.to_source(best.boxes),
                "scores": best.scores,
                "class_ids": best.class_ids.long(),
                "size_hw": torch.tensor(batch.pixels.shape[1:3], dtype=torch.float32),
                **observe_candidates(outputs["boxes"][index].float(), outputs["scores"][index].float()),
                **observe_instances(outputs, index, best),
            }
        )
    return observations


def observe_candidates(boxes: Tensor, scores: Tensor) -> Observation:
    """Observe what an image has before NMS. boxes: (Q, 4). scores: (Q,) or (Q, C)."""
    told = scores[scores != DROPPED]
    best, places = scores.flatten().topk(min(RAW_BOXES, scores.numel()))
    return {
        "score_profile": score_profile(scores),
        "mean_score": scores.clamp(min=0).mean(),
        "score_range": torch.stack(told.aminmax()) if told.numel() else torch.zeros(2),
        "raw_boxes": boxes[places // max(1, scores[:1].numel())],
        "raw_scores": best,
    }


OBSERVERS: dict[Task, Callable[[VisionHandler, ImageBatch, Mapping[str, Tensor]], list[Observation]]] = {
    "classification": _observe_classes,
    "detection": _observe_boxes,
    "embedding": _observe_vectors,
}


def _key(folder: Path, paths: Sequence[Path]) -> str:
    """Hash all that could change an observation: artifact, configuration, images, code, libraries."""
    config = read_handler_config(folder / "model-config.yaml")
    digest = hashlib.sha256(f"{hash_artifact(folder, config.artifact)} {hash_config(folder, config)}".encode())
    digest.update(orjson.dumps(package_versions(REFERENCE_PACKAGES)))
    for path in (Path(__file__), *sorted(HANDLER_SOURCES.rglob("*.py")), *paths):
        digest.update(hashlib.sha256(read_image(path)).digest())
    return digest.hexdigest()


def _keep(observations: Sequence[Observation], path: Path, key: str) -> None:
    tensors = {
        f"{index}.{name}": values.contiguous()
        for index, observation in enumerate(observations)
        for name, values in observation.items()
    }
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    save_file(tensors, temporary, {"key": key})
    temporary.chmod(0o644)  # safetensors makes it for the owner alone
    temporary.replace(path)


def _read_kept(path: Path, key: str) -> list[Observation] | None:
    """Read the observations of a key from disk; None where there are none."""
    if not path.is_file():
        return None
    observations: dict[int, dict[str, Tensor]] = {}
    try:
        with safe_open(path, "pt") as kept:
            if (kept.metadata() or {}).get("key") != key:
                return None
            for entry in kept.keys():  # noqa: SIM118 (not a dict)
                index, _, name = entry.partition(".")
                observations.setdefault(int(index), {})[name] = kept.get_tensor(entry)
    except SafetensorError:  # damaged: observed again, and replaced
        return None
    return [observations[index] for index in sorted(observations)]
