"""How the pixels and the answers of a library differ from ours."""

import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

import torch
from torch import Tensor

from lab.fidelity.compared_models import ComparedModel, Library, ModelCase
from lab.fidelity.pictures import EncodedPhotograph
from lab.fidelity.results import AnswerDifference, ModelFidelity, PixelDifference
from mar_tools.building.table import describe_preprocessing
from mar_tools.exporting.signal_to_noise import score_profile
from mar_tools.verification.agreement import measure_boxes, measure_classes
from mar_tools.verification.observations import Observation
from vision_serving.errors import ConfigError, how_to_install
from vision_serving.graphs.pixels import Normalize
from vision_serving.pictures.resizing import preprocess_images
from vision_serving.predictions import Detections
from vision_serving.requests.payload import Payload

SAME_LEVEL = 0.51  # levels: half of one where the library does not round, and the noise of float32
ONE_LEVEL = 1.01


def list_cases() -> list[ModelCase]:
    """Return the models of all libraries. Raises ConfigError for a library that is missing."""
    cases: list[ModelCase] = []
    for library in get_args(Library):
        try:
            cases += import_module(f"lab.fidelity.{library}_cases").CASES
        except ModuleNotFoundError as error:
            raise ConfigError(f"comparing models of {library!r} needs {how_to_install(error)}") from error
    return cases


def measure_case(case: ModelCase, pictures: Sequence[EncodedPhotograph]) -> ModelFidelity:
    started = time.monotonic()
    with TemporaryDirectory(prefix="fidelity-") as folder, torch.inference_mode():
        compared = case.open(Path(folder))
        pixels = compare_pixels(compared, pictures)
        answers = compare_answers(compared, pictures[: case.answered]) if case.answered else None
    return ModelFidelity(
        library=case.library,
        model=case.name,
        settings=describe_preprocessing(compared.preprocessing).removeprefix("preprocessing: "),
        network=case.network,
        pixels=pixels,
        answers=answers,
        seconds=round(time.monotonic() - started, 1),
    )


def compare_pixels(compared: ComparedModel, pictures: Sequence[EncodedPhotograph]) -> PixelDifference:
    differences = [difference_in_levels(compared, picture) for picture in pictures]
    count = sum(levels.numel() for levels in differences)
    return PixelDifference(
        pictures=len(pictures),
        other_level=sum(int((levels > SAME_LEVEL).sum()) for levels in differences) / count,
        beyond_one=sum(int((levels > ONE_LEVEL).sum()) for levels in differences) / count,
        largest=round(max(float(levels.max()) for levels in differences), 2),
    )


def difference_in_levels(compared: ComparedModel, picture: EncodedPhotograph) -> Tensor:
    """Return (3, H, W): how many 8-bit levels the pixels differ. Raises ConfigError for two sizes."""
    config = compared.preprocessing
    pixels = preprocess_images([picture.decoded], config).pixels
    found = Normalize(config)(pixels)[0]
    expected = compared.prepare(picture.opened)
    if found.shape != expected.shape:
        raise ConfigError(f"{picture.name}: the library makes {tuple(expected.shape)} of it, we {tuple(found.shape)}")
    levels: Tensor = (found - expected).abs() * 255 * torch.tensor(config.std).view(3, 1, 1)
    return levels


def compare_answers(compared: ComparedModel, pictures: Sequence[EncodedPhotograph]) -> AnswerDifference:
    expected = [compared.answer(picture.opened) for picture in pictures]
    if compared.handler.config.task == "classification":
        return compare_classes(expected, [our_logits(compared, picture) for picture in pictures])
    return compare_boxes(expected, [our_boxes(compared, picture) for picture in pictures], compared)


def our_logits(compared: ComparedModel, picture: EncodedPhotograph) -> Observation:
    batch = compared.handler.preprocess([picture.decoded])
    return {"logits": compared.handler.inference(batch)["logits"][0]}


def our_boxes(compared: ComparedModel, picture: EncodedPhotograph) -> Observation:
    """Return what a client gets, with all the handler's defaults. Raises the error of a picture."""
    [outcome] = compared.handler.predict([Payload(images=(picture.encoded,), options={})])
    [item] = outcome.items
    if not isinstance(item, Detections):
        raise ConfigError(f"{picture.name}: {item}")
    found = item.detections
    return {
        "boxes": torch.tensor([entry.box for entry in found]).reshape(-1, 4),
        "scores": torch.tensor([entry.score for entry in found]),
        "class_ids": torch.tensor([entry.class_id for entry in found], dtype=torch.int64),
    }


def compare_classes(expected: Sequence[Observation], found: Sequence[Observation]) -> AnswerDifference:
    best = [[int(image["logits"].argmax()) for image in side] for side in (expected, found)]
    measured = measure_classes(expected, found)
    return AnswerDifference(
        pictures=len(expected),
        same_best=sum(ours == theirs for ours, theirs in zip(*best, strict=True)) / len(expected),
        snr_db=round(measured["snr_db"], 1),
        difference=round(measured["score_difference"], 6),
    )


def compare_boxes(
    expected: Sequence[Observation], found: Sequence[Observation], compared: ComparedModel
) -> AnswerDifference:
    """Compare boxes above the threshold of both; boxes near it may be on either side."""
    threshold = float(compared.handler.config.options["score_threshold"])
    measured = measure_boxes(add_profiles(expected), add_profiles(found), threshold)
    return AnswerDifference(
        pictures=len(expected),
        matched_boxes=round(measured["matched_boxes"], 4),
        compared_boxes=int(measured["compared_boxes"]),
        least_iou=round(measured["iou"], 4),
        difference=round(measured["score_difference"], 6),
    )


def add_profiles(images: Sequence[Observation]) -> list[Observation]:
    return [
        {**image, "score_profile": score_profile(image["scores"]), "mean_score": image["scores"].mean().nan_to_num()}
        for image in images
    ]
