"""transformers' image processors with the settings that published models have, before tiny networks of their kind."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import PIL.Image
import torch
import transformers
from torch import Tensor

from lab.fidelity.compared_models import (
    SCORE_THRESHOLD,
    ComparedModel,
    ModelCase,
    classify,
    open_own_archive,
    write_recipe,
)
from mar_tools.models.random_weights import settle_batch_norm
from mar_tools.models.sources.huggingface import output_of
from mar_tools.models.sources.image_processors import preprocessing_of
from mar_tools.verification.observations import Observation
from vision_serving.graphs.construction import build_graph
from vision_serving.graphs.outputs import OutputFormat
from vision_serving.options import Task

LABELS = {0: "cat", 1: "dog", 2: "bird", 3: "fish"}
VIT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
STAGES = {"hidden_sizes": [16, 16, 32, 32], "depths": [1, 1, 1, 1]}
RESNET: dict[str, Any] = {**STAGES, "embedding_size": 16, "layer_type": "basic"}
DETR = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "num_queries": 20,
}
RT_DETR: dict[str, Any] = {
    "encoder_hidden_dim": 32,
    "encoder_in_channels": [16, 32, 32],
    "feat_strides": [8, 16, 32],
    "encoder_ffn_dim": 32,
    "encoder_attention_heads": 2,
    "decoder_in_channels": [32, 32, 32],
    "d_model": 32,
    "decoder_ffn_dim": 32,
    "decoder_attention_heads": 2,
    "decoder_layers": 1,
    "num_queries": 30,
    "num_denoising": 0,
}


@dataclass(frozen=True)
class ProcessorCase:
    """config: the network's class and what is smaller than published. processor: its class, and published settings."""

    config: str
    processor: str
    network: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    task: Task = "classification"


def detr_network() -> dict[str, Any]:
    backbone = transformers.ResNetConfig(**RESNET, out_features=["stage4"])
    return {**DETR, "use_timm_backbone": False, "backbone_config": backbone, "backbone": None}


def rt_detr_network() -> dict[str, Any]:
    stages = ["stage2", "stage3", "stage4"]
    backbone = transformers.RTDetrResNetConfig(**RESNET, out_features=stages, downsample_in_bottleneck=False)
    return {**RT_DETR, "backbone_config": backbone}


IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
SEGFORMER = {"hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1], "decoder_hidden_size": 32}
YOLOS = {**VIT, "image_size": [320, 480], "num_detection_tokens": 20}
SQUARE = {"shortest_edge": 640, "longest_edge": 640}
CLIP = {"vision_config": {**VIT, "image_size": 224, "patch_size": 32}, "projection_dim": 32}
PADDED = {"do_pad": True, "pad_size": {"height": 640, "width": 640}}
PROCESSOR_CASES: dict[str, ProcessorCase] = {
    "vit": ProcessorCase("ViTConfig", "ViTImageProcessor", {**VIT, "image_size": 224}),
    "swin": ProcessorCase(
        "SwinConfig",
        "ViTImageProcessor",
        {"image_size": 224, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2]},
        {**IMAGENET, "resample": 3},
    ),
    "deit": ProcessorCase(
        "DeiTConfig", "DeiTImageProcessor", {**VIT, "image_size": 224, "architectures": ["DeiTForImageClassification"]}
    ),
    "beit": ProcessorCase("BeitConfig", "BeitImageProcessor", {**VIT, "image_size": 224}),
    "convnext at 224": ProcessorCase(
        "ConvNextConfig", "ConvNextImageProcessor", STAGES, {"size": {"shortest_edge": 224}}
    ),
    "convnext at 384": ProcessorCase("ConvNextConfig", "ConvNextImageProcessor", STAGES),
    "resnet": ProcessorCase(
        "ResNetConfig", "ConvNextImageProcessor", RESNET, {"size": {"shortest_edge": 224}, **IMAGENET}
    ),
    "clip": ProcessorCase("CLIPConfig", "CLIPImageProcessor", CLIP),
    "siglip": ProcessorCase(
        "SiglipConfig", "SiglipImageProcessor", {"vision_config": {**VIT, "image_size": 224, "patch_size": 16}}
    ),
    "dinov2": ProcessorCase(
        "Dinov2Config",
        "BitImageProcessor",
        {**VIT, "image_size": 224, "patch_size": 14},
        {**IMAGENET, "size": {"shortest_edge": 256}},
    ),
    "mobilevit, BGR": ProcessorCase(
        "MobileViTConfig",
        "MobileViTImageProcessor",
        {"hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 8, 16, 16, 24, 24, 64], "expand_ratio": 2.0},
        {"size": {"shortest_edge": 288}},
    ),
    "mobilenet_v2": ProcessorCase("MobileNetV2Config", "MobileNetV2ImageProcessor", {"depth_multiplier": 0.35}),
    "levit": ProcessorCase(
        "LevitConfig",
        "LevitImageProcessor",
        {
            "hidden_sizes": [32, 32, 32],
            "num_attention_heads": [2, 2, 2],
            "depths": [1, 1, 1],
            "architectures": ["LevitForImageClassification"],
        },
    ),
    "poolformer": ProcessorCase("PoolFormerConfig", "PoolFormerImageProcessor", {**STAGES, "depths": [1, 1, 1, 1]}),
    "segformer": ProcessorCase("SegformerConfig", "SegformerImageProcessor", SEGFORMER),
    "vit, lanczos": ProcessorCase("ViTConfig", "ViTImageProcessor", {**VIT, "image_size": 224}, {"resample": 1}),
    "detr": ProcessorCase("DetrConfig", "DetrImageProcessor", {"network": detr_network}, task="detection"),
    "conditional_detr": ProcessorCase(
        "ConditionalDetrConfig", "ConditionalDetrImageProcessor", {"network": detr_network}, task="detection"
    ),
    "rt_detr": ProcessorCase("RTDetrConfig", "RTDetrImageProcessor", {"network": rt_detr_network}, task="detection"),
    "rt_detr, padded": ProcessorCase(
        "RTDetrConfig", "RTDetrImageProcessor", {"network": rt_detr_network}, {**PADDED, "size": SQUARE}, "detection"
    ),
    "yolos": ProcessorCase(
        "YolosConfig", "YolosImageProcessor", YOLOS, {"size": {"shortest_edge": 512, "longest_edge": 864}}, "detection"
    ),
    "yolos, padded": ProcessorCase(
        "YolosConfig",
        "YolosImageProcessor",
        YOLOS,
        {**PADDED, "size": {"max_height": 640, "max_width": 640}},
        "detection",
    ),
}


def open_kind(folder: Path, kind: ProcessorCase) -> ComparedModel:
    """Save a model folder as `save_pretrained` does, a classifier without its weights, and open it."""
    transformers.utils.logging.disable_progress_bar()
    make: Callable[[], dict[str, Any]] | None = kind.network.get("network")
    arguments = dict(kind.network) if make is None else make()
    config = getattr(transformers, kind.config)(**arguments, id2label=LABELS)
    config.save_pretrained(folder / "model")
    processor = getattr(transformers, kind.processor)(**kind.settings)
    processor.save_pretrained(folder / "model")
    document: dict[str, Any] = {
        "task": kind.task,
        "model": {"source": "huggingface", "name": "model", "weights": "random"},
    }
    if kind.task == "detection":
        save_detector(folder / "model", config, processor)
        document["model"]["weights"] = "pretrained"
        document["options"] = {"score_threshold": SCORE_THRESHOLD}
    network, handler = open_own_archive(write_recipe(folder, document))
    prepare = partial(prepare_with, processor)
    answer = classify(network, prepare) if kind.task == "classification" else partial(find_objects, network, processor)
    return ComparedModel(handler.config.preprocessing, handler, prepare, answer)


def save_detector(folder: Path, config: Any, processor: Any) -> None:
    """Save a detector with random weights whose scores differ, but are not all near 0 or 1: ties have no order.

    What transformers leaves at 0 tells detections apart, and what lies at the border from nothing at all.
    """
    torch.manual_seed(0)
    network = transformers.AutoModelForObjectDetection.from_config(config)
    for name, layer in network.named_modules():
        if isinstance(layer, torch.nn.Linear) and any(head in name for head in ("class", "enc_score_head", "bbox")):
            torch.nn.init.normal_(layer.weight, std=0.4)
    for name, parameter in network.named_parameters():
        if name.endswith(("position_embeddings", "detection_tokens", "cls_token")):
            torch.nn.init.normal_(parameter, std=0.5)
    preprocessing = preprocessing_of(processor)
    output = output_of(config, "detection", OutputFormat())
    settle_batch_norm(network, build_graph(network, "detection", preprocessing, output), preprocessing)
    network.save_pretrained(folder)


def prepare_with(processor: Any, picture: PIL.Image.Image) -> Tensor:
    pixels: Tensor = processor(images=picture, return_tensors="pt")["pixel_values"][0]
    return pixels


def find_objects(network: Any, processor: Any, picture: PIL.Image.Image) -> Observation:
    inputs = processor(images=picture, return_tensors="pt")
    outputs = network(pixel_values=inputs["pixel_values"])
    [found] = processor.post_process_object_detection(
        outputs, threshold=SCORE_THRESHOLD, target_sizes=[source_size(inputs, picture, processor)]
    )
    limits = torch.tensor([picture.width, picture.height] * 2)  # transformers does not clip boxes to the picture
    boxes = found["boxes"].clamp(min=0).minimum(limits)
    return {"boxes": boxes, "scores": found["scores"], "class_ids": found["labels"]}


def source_size(inputs: Mapping[str, Tensor], picture: PIL.Image.Image, processor: Any) -> tuple[float, float]:
    """Return (height, width) of the picture, enlarged as its padding enlarges what the network sees."""
    if not (processor.do_pad and processor.pad_size):
        return picture.height, picture.width
    padded_hw, mask = inputs["pixel_values"].shape[-2:], inputs["pixel_mask"][0]
    kept_h, kept_w = int(mask[:, 0].sum()), int(mask[0].sum())
    return picture.height * padded_hw[0] / kept_h, picture.width * padded_hw[1] / kept_w


CASES = tuple(ModelCase("huggingface", name, partial(open_kind, kind=kind)) for name, kind in PROCESSOR_CASES.items())
