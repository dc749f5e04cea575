"""The JSON files of a folder, which programs of any language read, and the recipes that cannot go into them."""

from pathlib import Path
from typing import Any

import orjson

from mar_tools.edge.formats.base import Written
from vision_serving.config import HandlerConfig
from vision_serving.errors import ConfigError
from vision_serving.options import DetectionOptions, EmbeddingOptions, MultiLabelOptions, Options
from vision_serving.results.postprocessing import find_thresholds

PIXELS = {"name": "pixels", "type": "uint8", "layout": "NHWC", "colours": "RGB, 0 to 255"}


def check_can_leave(config: HandlerConfig, options: Options) -> None:
    """Raises ConfigError for what a folder's programs cannot do."""
    refused = None
    if config.instances is not None:
        refused = f"answers with {config.instances}, and the folder's programs know boxes, classes and vectors"
    elif isinstance(options, DetectionOptions):
        if options.nms == "soft":
            refused = "has `nms: soft`; expected class_wise, class_agnostic or none"
        elif options.tile_size:
            refused = "has `tile_size`; the folder's programs see whole pictures"
        elif options.box_format != "xyxy":
            refused = f"has `box_format: {options.box_format}`; the folder's programs answer xyxy"
    if refused:
        raise ConfigError(f"this model cannot be exported for other devices: it {refused}")


def describe_options(config: HandlerConfig, options: Options, labels: list[str]) -> dict[str, Any]:
    """Return options.json: what turns outputs into answers, with a threshold for each class."""
    if isinstance(options, EmbeddingOptions):
        return {"normalize": True}
    if isinstance(options, DetectionOptions):
        return {
            "thresholds": _thresholds(options, len(labels)),
            "class_filter": None if options.class_filter is None else list(options.class_filter),
            "nms": options.nms,
            "iou_threshold": options.iou_threshold,
            "max_detections": options.max_detections,
            "candidates_per_class": config.candidates_per_class,
        }
    found: dict[str, Any] = {"activation": config.activation or "softmax", **options.model_dump(include={"top_k"})}
    return (
        {**found, "thresholds": _thresholds(options, len(labels))} if isinstance(options, MultiLabelOptions) else found
    )


def _thresholds(options: DetectionOptions | MultiLabelOptions, count: int) -> list[float]:
    import torch  # with all else of a handler

    found = find_thresholds(torch.arange(count), options.score_threshold, options.class_thresholds)
    return [round(value, 6) for value in found.expand(count).tolist()]


def write_documents(
    folder: Path, about: dict[str, Any], config: HandlerConfig, options: Options, labels: list[str]
) -> None:
    """Write model.json, preprocessing.json, options.json and labels.json."""
    documents: dict[str, Any] = {
        "model": about,
        "preprocessing": config.preprocessing.model_dump(mode="json", exclude={"mean", "std", "color_order", "gray"}),
        "options": describe_options(config, options, labels),
        "labels": labels,
    }
    for name, document in documents.items():
        (folder / f"{name}.json").write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))


def describe_model(
    name: str, version: str, form: str, config: HandlerConfig, written: Written, outputs: list[str]
) -> dict[str, Any]:
    """Return model.json: what the artifact takes and gives. shape: null where it may be any number."""
    return {
        "name": name,
        "version": version,
        "task": config.task,
        "format": form,
        "precision": config.precision,
        "artifact": written.artifact,
        "input": {**PIXELS, "shape": [written.batch, *(config.preprocessing.fixed_hw or (None, None)), 3]},
        "outputs": outputs,
        **({"quantization": dict(written.quantization)} if written.quantization else {}),
        **written.about,
    }
