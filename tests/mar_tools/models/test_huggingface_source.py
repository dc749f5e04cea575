"""transformers' models and image processors against transformers itself: tiny random configurations in a folder."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import PIL.Image
import pytest
import torch
import transformers
import yaml
from fakes import encode_image, generate_image
from torch import Tensor

from mar_tools.exporting.export import export_model
from mar_tools.models.checkpoints import Checkpoint, load_checkpoint
from mar_tools.models.random_weights import settle_batch_norm
from mar_tools.models.recipes import Recipe, read_recipe
from mar_tools.models.sources.huggingface import output_of
from mar_tools.models.sources.image_processors import preprocessing_of
from mar_tools.verification.observations import load_handler
from vision_serving.errors import ConfigError
from vision_serving.graphs.outputs import OutputFormat
from vision_serving.graphs.pixels import Normalize
from vision_serving.options import Task
from vision_serving.pictures.decoding import Image
from vision_serving.pictures.resizing import preprocess_images
from vision_serving.requests.payload import Payload

LABELS = {0: "cat", 1: "dog", 2: "bird", 3: "fish"}
SMALL_VIT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
TINY_RESNET: dict[str, Any] = {
    "embedding_size": 8, "hidden_sizes": [8, 16, 16, 16], "depths": [1, 1, 1, 1], "layer_type": "basic",
    "out_features": ["stage4"],
}  # fmt: skip
TINY_DETR: dict[str, Any] = {
    "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "num_queries": 12,
}  # fmt: skip
EDGES = {"shortest_edge": 64, "longest_edge": 96}


def vit() -> tuple[Any, Any]:
    config = transformers.ViTConfig(**SMALL_VIT, image_size=32, patch_size=8, id2label=LABELS)
    processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
    return transformers.ViTForImageClassification(config), processor


def convnext() -> tuple[Any, Any]:
    config = transformers.ConvNextConfig(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], id2label=LABELS)
    processor = transformers.ConvNextImageProcessor(size={"shortest_edge": 64})
    return transformers.ConvNextForImageClassification(config), processor


def resnet() -> tuple[Any, Any]:
    config = transformers.ResNetConfig(**TINY_RESNET, id2label=LABELS)
    processor = transformers.ConvNextImageProcessor(size={"shortest_edge": 64}, crop_pct=0.9)
    return transformers.ResNetForImageClassification(config), processor


def swin() -> tuple[Any, Any]:
    config = transformers.SwinConfig(
        image_size=64, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4, id2label=LABELS
    )
    processor = transformers.ViTImageProcessor(size={"height": 64, "width": 64}, resample=3)
    return transformers.SwinForImageClassification(config), processor


def detr_of(kind: str) -> tuple[Any, Any]:
    backbone = {"use_timm_backbone": False, "backbone_config": transformers.ResNetConfig(**TINY_RESNET)}
    config = getattr(transformers, f"{kind}Config")(**TINY_DETR, **backbone, backbone=None, id2label=LABELS)
    processor = getattr(transformers, f"{kind}ImageProcessor")(size=EDGES)
    return getattr(transformers, f"{kind}ForObjectDetection")(config), processor


def yolos() -> tuple[Any, Any]:
    config = transformers.YolosConfig(
        **SMALL_VIT, image_size=[64, 96], patch_size=16, num_detection_tokens=10, id2label=LABELS
    )
    processor = transformers.YolosImageProcessor(size={"shortest_edge": 70, "longest_edge": 100})
    return transformers.YolosForObjectDetection(config), processor


def rt_detr() -> tuple[Any, Any]:
    backbone = transformers.RTDetrResNetConfig(
        **{**TINY_RESNET, "out_features": ["stage2", "stage3", "stage4"]}, downsample_in_bottleneck=False
    )
    config = transformers.RTDetrConfig(
        **{**TINY_DETR, "num_queries": 20}, backbone_config=backbone, encoder_hidden_dim=16, num_denoising=0,
        encoder_in_channels=[16] * 3, decoder_in_channels=[16] * 3, feat_strides=[8, 16, 32], id2label=LABELS,
    )  # fmt: skip
    processor = transformers.RTDetrImageProcessor(size={"height": 64, "width": 64})
    return transformers.RTDetrForObjectDetection(config), processor


CLASSIFIERS = {"vit": vit, "convnext": convnext, "resnet": resnet, "swin": swin}
DETECTORS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "detr": partial(detr_of, "Detr"), "conditional_detr": partial(detr_of, "ConditionalDetr"), "yolos": yolos,
    "rt_detr": rt_detr,
}  # fmt: skip
SIZES_HW = [(90, 120), (130, 100), (64, 64), (61, 200), (333, 501)]


def spread(model: Any) -> None:
    """Random heads score all alike: give their class layers a spread."""
    for name, layer in model.named_modules():
        if isinstance(layer, torch.nn.Linear) and any(part in name for part in ("class", "enc_score_head")):
            torch.nn.init.normal_(layer.weight, std=1.0)
            torch.nn.init.normal_(layer.bias, std=0.2)
            layer.bias.data[len(LABELS) :] = -3.0  # "no object"


class ModelOfPixels(torch.nn.Sequential):
    def forward(self, pixels: Tensor) -> Any:
        return self[0](self[1](pixels))


def save_model(folder: Path, name: str) -> tuple[Any, Any]:
    """A model and its image processor, as `save_pretrained` leaves them in `folder`."""
    torch.manual_seed(0)
    model, processor = {**CLASSIFIERS, **DETECTORS}[name]()
    spread(model)
    preprocessing = preprocessing_of(processor)
    settle_batch_norm(model, ModelOfPixels(model, Normalize(preprocessing)), preprocessing)
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return model, processor


def recipe_of(folder: Path, task: Task, **model: Any) -> Recipe:
    path = folder / "recipe.yaml"
    document = {"name": "m", "task": task, "options": {"score_threshold": 0.3} if task == "detection" else {}}
    network = {"source": "huggingface", "name": "model", "weights": "pretrained", **model}
    path.write_text(yaml.safe_dump({**document, "model": network}))
    return read_recipe(path)


def build(folder: Path, name: str) -> tuple[Any, Any, Recipe, Checkpoint]:
    model, processor = save_model(folder / "model", name)
    recipe = recipe_of(folder, "classification" if name in CLASSIFIERS else "detection")
    return model, processor, recipe, load_checkpoint(recipe)


def prepared(processor: Any, image: Image) -> Tensor:
    pixels: Tensor = processor(images=PIL.Image.fromarray(image), return_tensors="pt")["pixel_values"]
    return pixels


@pytest.mark.parametrize("name", [*CLASSIFIERS, *DETECTORS])
@pytest.mark.parametrize("size_hw", SIZES_HW, ids=str)
def test_pixels_are_those_of_the_image_processor(name: str, size_hw: tuple[int, int]) -> None:
    _, processor = {**CLASSIFIERS, **DETECTORS}[name]()
    config = preprocessing_of(processor)
    image = generate_image(4, size_hw)
    expected = prepared(processor, image)[0]
    pixels = preprocess_images([image], config).pixels[0].permute(2, 0, 1)
    assert pixels.shape == expected.shape
    mean, std = torch.tensor(config.mean).view(3, 1, 1), torch.tensor(config.std).view(3, 1, 1)
    levels = ((expected * std + mean) * 255 - pixels).abs()
    assert levels.max() < 1.01
    assert (levels > 0.01).float().mean() < 0.01


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_gives_the_logits_and_labels_of_transformers(tmp_path: Path, name: str) -> None:
    model, processor, recipe, checkpoint = build(tmp_path, name)
    folder = export_model(recipe, checkpoint, "eager", "fp32", tmp_path / "exports")
    handler = load_handler(folder)
    image = generate_image(2, (200, 300))
    with torch.inference_mode():
        expected = model(prepared(processor, image)).logits
    found = handler.backend.infer(preprocess_images([image], checkpoint.preprocessing).pixels)["logits"]
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4)  # pixels may differ by a level
    assert checkpoint.labels == list(LABELS.values())
    assert float(expected.std()) > 0.01, "equal logits would prove nothing"


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("size_hw", [(90, 120), (150, 100)], ids=str)
def test_a_detector_gives_the_detections_of_its_image_processor(
    tmp_path: Path, name: str, size_hw: tuple[int, int]
) -> None:
    model, processor, recipe, checkpoint = build(tmp_path, name)
    folder = export_model(recipe, checkpoint, "eager", "fp32", tmp_path / "exports")
    image = generate_image(2, size_hw)
    with torch.inference_mode():
        outputs = model(prepared(processor, image))
    [expected] = processor.post_process_object_detection(outputs, threshold=0.3, target_sizes=[size_hw])
    [outcome] = load_handler(folder).predict([Payload(images=(encode_image(image),), options={})])
    found = outcome.items[0].detections  # type: ignore[union-attr]
    order = expected["scores"].argsort(descending=True, stable=True)
    limits = torch.tensor([size_hw[1], size_hw[0]] * 2)
    assert len(found) == len(order) > 3, "few detections would prove little"
    assert sorted(entry.class_id for entry in found) == sorted(expected["labels"].tolist())
    torch.testing.assert_close(torch.tensor([e.score for e in found]), expected["scores"][order], atol=2e-3, rtol=0)
    boxes = expected["boxes"][order].clamp(min=0).minimum(limits)
    torch.testing.assert_close(torch.tensor([entry.box for entry in found]), boxes, atol=0.3, rtol=0)


@pytest.mark.parametrize("name", ["detr", "rt_detr"])
def test_equal_boxes_are_all_kept(tmp_path: Path, name: str) -> None:
    """NMS with the default IoU threshold of these detectors changes nothing."""
    *_, recipe, checkpoint = build(tmp_path, name)
    handler = load_handler(export_model(recipe, checkpoint, "eager", "fp32", tmp_path / "exports"))
    scores = torch.linspace(0.4, 0.9, 12).unsqueeze(1).expand(12, 4)
    boxes = torch.tensor([[3.3, 4.7, 50.1, 61.9]]).expand(12, 4)
    image = generate_image(2, (90, 120))
    batch = handler.preprocess([image])
    outputs = {"boxes": boxes.unsqueeze(0), "scores": scores.unsqueeze(0)}
    [found] = handler.postprocess(outputs, batch, [handler.read_options({"max_detections": 100})])
    assert len(found.detections) == 48  # type: ignore[union-attr]


def test_an_eager_archive_needs_neither_folder_nor_hub(tmp_path: Path) -> None:
    model, _, recipe, checkpoint = build(tmp_path, "detr")
    folder = export_model(recipe, checkpoint, "eager", "fp32", tmp_path / "exports")
    source = orjson.loads((folder / "model" / "source.json").read_bytes())["network"]
    assert source["arguments"]["model_type"] == "detr"
    assert source["arguments"]["num_queries"] == model.config.num_queries
    for file in (tmp_path / "model").iterdir():
        file.unlink()
    load_handler(folder)


@pytest.mark.parametrize("name", ["vit", "detr"])
def test_random_weights_need_the_configuration_alone(tmp_path: Path, name: str) -> None:
    save_model(tmp_path / "model", name)
    (tmp_path / "model" / "model.safetensors").unlink()
    recipe = recipe_of(tmp_path, "classification" if name == "vit" else "detection", weights="random")
    first, second = (load_checkpoint(recipe).network.state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_the_weights_file_of_a_folder_may_be_named(tmp_path: Path) -> None:
    model, _ = save_model(tmp_path / "model", "vit")
    recipe = recipe_of(tmp_path, "classification", weights="model/model.safetensors")
    state = load_checkpoint(recipe).network.state_dict()
    assert all(torch.equal(values, state[key]) for key, values in model.state_dict().items())


@pytest.mark.parametrize("weights", ["pretrained", "model/model.safetensors"])
def test_a_head_without_weights_is_refused(tmp_path: Path, weights: str) -> None:
    save_model(tmp_path / "model", "vit")
    recipe = recipe_of(tmp_path, "classification", weights=weights, arguments={"num_labels": 7})
    with pytest.raises(ConfigError, match="do not fit ViTForImageClassification: 2 are missing or of another shape"):
        load_checkpoint(recipe)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"arguments": {"num_label": 7}}, r"config\.json of .* 'model' has no \['num_label'\] \(`arguments`\)"),
        ({"output": {"format": "probabilities"}}, "output of source 'huggingface' takes"),
    ],
    ids=["a misspelt argument", "an output format"],
)
def test_what_would_be_ignored_is_refused(tmp_path: Path, model: dict[str, Any], message: str) -> None:
    save_model(tmp_path / "model", "vit")
    with pytest.raises(ConfigError, match=message):
        load_checkpoint(recipe_of(tmp_path, "classification", **model))


@pytest.mark.parametrize("missing", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_a_folder_without_a_file_is_refused(tmp_path: Path, missing: str) -> None:
    save_model(tmp_path / "model", "vit")
    (tmp_path / "model" / missing).unlink()
    with pytest.raises(ConfigError, match=r"of huggingface model 'model': .* download the model elsewhere"):
        load_checkpoint(recipe_of(tmp_path, "classification"))


def test_a_model_that_the_hub_does_not_give_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=r"cannot read config.json of huggingface model 'facebook/no-such'"):
        load_checkpoint(recipe_of(tmp_path, "detection", name="facebook/no-such"))


def test_a_detector_of_another_task_is_refused(tmp_path: Path) -> None:
    save_model(tmp_path / "model", "vit")
    with pytest.raises(ConfigError, match="huggingface detectors of type 'vit' are not supported"):
        load_checkpoint(recipe_of(tmp_path, "detection"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"do_resize": False}, "do_resize false or no size"),
        ({"size": {"shortest_edge": 32}}, "no crop"),
        ({"size": {"max_height": 32, "max_width": 48}}, "expected height and width"),
    ],
    ids=["no resize", "unbounded", "another size"],
)
def test_settings_without_counterpart_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        preprocessing_of(transformers.ViTImageProcessor(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"do_normalize": False},
        {"do_rescale": False},
        {"rescale_factor": 1 / 127.5},
        {"do_rescale": False, "do_normalize": False},
        {"size": {"shortest_edge": 51}, "do_center_crop": True, "crop_size": {"height": 40, "width": 32}},
        {"resample": 1},
    ],
    ids=["not normalised", "not scaled", "to 2", "as they are", "crop", "lanczos"],
)
def test_switched_off_steps_and_other_scales_are_taken_over(changes: dict[str, Any]) -> None:
    processor = transformers.ViTImageProcessor(**{"size": {"height": 32, "width": 32}, **changes})
    config = preprocessing_of(processor)
    image = generate_image(1, (65, 98))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (config.mean, config.std))
    pixels = preprocess_images([image], config).pixels[0].permute(2, 0, 1)
    found, expected = (pixels / 255 - mean) / std, prepared(processor, image)[0]
    level = float(1 / 255 / np.min(config.std))
    assert (found - expected).abs().max() <= 2.01 * level


PADDED = {"do_pad": True, "pad_size": {"height": 96, "width": 112}}


@pytest.mark.parametrize(
    "processor",
    [
        transformers.MobileViTImageProcessor(size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}),
        transformers.PoolFormerImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        transformers.LevitImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}),
        transformers.RTDetrImageProcessor(size=EDGES, **PADDED),
        transformers.YolosImageProcessor(size=EDGES, **PADDED),
        transformers.RTDetrImageProcessor(size={"max_height": 80, "max_width": 80}, **PADDED),
    ],
    ids=["blue first", "crop_pct", "enlarged", "padded", "padded with the mean", "padded square"],
)
@pytest.mark.parametrize("size_hw", [(90, 120), (200, 61)], ids=str)
def test_what_only_some_processors_do_is_taken_over(processor: Any, size_hw: tuple[int, int]) -> None:
    config = preprocessing_of(processor)
    image = generate_image(4, size_hw)
    found = Normalize(config)(preprocess_images([image], config).pixels)[0]
    expected = prepared(processor, image)[0]
    assert found.shape == expected.shape
    levels = (found - expected).abs() * 255 * torch.tensor(config.std).view(3, 1, 1)
    assert levels.max() <= 0.51  # the mean that pads lies between two levels


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ({"shortest_edge": 64, "longest_edge": 128}, r"`pad_size` \(96, 112\) is smaller than `max_size` 128"),
        ({"height": 64, "width": 64}, "`pad_size` needs `max_size`"),
    ],
    ids=["too small", "exact"],
)
def test_padding_that_may_not_hold_a_picture_is_refused(size: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        preprocessing_of(transformers.RTDetrImageProcessor(size=size, **PADDED))


def test_padding_is_refused_where_the_network_needs_its_mask(tmp_path: Path) -> None:
    save_model(tmp_path / "model", "detr")
    transformers.DetrImageProcessor(size=EDGES, **PADDED).save_pretrained(tmp_path / "model")
    with pytest.raises(ConfigError, match=r"to pad_size \(96, 112\), and models of type 'detr' need a mask"):
        load_checkpoint(recipe_of(tmp_path, "detection"))


def test_a_processor_with_steps_of_its_own_is_refused(tmp_path: Path) -> None:
    save_model(tmp_path / "model", "vit")
    transformers.PerceiverImageProcessor().save_pretrained(tmp_path / "model")
    with pytest.raises(ConfigError, match="prepares pictures in a way that its settings do not tell"):
        load_checkpoint(recipe_of(tmp_path, "classification"))


def with_code_of_its_own(folder: Path) -> Path:
    """A model whose configuration, network and image processor name code beside them, which leaves a canary."""
    for part in vit():
        part.save_pretrained(folder)
    (folder / "code.py").write_text(
        f"open({str(folder / 'canary')!r}, 'w')\n"
        "import transformers\n"
        "class Config(transformers.ViTConfig): pass\n"
        "class Network(transformers.ViTForImageClassification): config_class = Config\n"
        "class Processor(transformers.ViTImageProcessor): pass\n"
    )
    maps = {"AutoConfig": "code.Config", "AutoModelForImageClassification": "code.Network"}
    for file, auto_map in (
        ("config.json", maps),
        ("preprocessor_config.json", {"AutoImageProcessor": "code.Processor"}),
    ):
        document = orjson.loads((folder / file).read_bytes())
        (folder / file).write_bytes(orjson.dumps({**document, "auto_map": auto_map}))
    return folder


def remote_recipe(folder: Path, **arguments: Any) -> Path:
    model = {"source": "huggingface", "name": folder.name, "weights": "pretrained", "arguments": arguments}
    path = folder.parent / "recipe.yaml"
    path.write_text(yaml.safe_dump({"name": "remote", "task": "classification", "model": model}))
    return path


def test_code_that_comes_with_a_model_is_not_run(tmp_path: Path) -> None:
    folder = with_code_of_its_own(tmp_path / "model")
    assert load_checkpoint(read_recipe(remote_recipe(folder))).labels == list(LABELS.values())
    assert not (folder / "canary").exists()


def test_code_that_a_recipe_trusts_is_run_only_where_the_command_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = with_code_of_its_own(tmp_path / "model")
    path = remote_recipe(folder, trust_remote_code=True)
    with pytest.raises(ConfigError, match=r"recipe\.yaml: `trust_remote_code` runs .* give --trust-remote-code"):
        read_recipe(path)
    assert not (folder / "canary").exists()
    load_checkpoint(read_recipe(path, trust_remote_code=True))
    assert (folder / "canary").exists()


def test_a_model_that_is_nothing_without_its_code_is_refused_and_nobody_is_asked(tmp_path: Path) -> None:
    folder = with_code_of_its_own(tmp_path / "model")
    document = orjson.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_bytes(orjson.dumps({**document, "model_type": "own"}))
    with pytest.raises(ConfigError, match="trust_remote_code"):
        load_checkpoint(read_recipe(remote_recipe(folder)))
    assert not (folder / "canary").exists()


def test_a_configuration_of_several_labels_means_independent_scores() -> None:
    config = transformers.ViTConfig(problem_type="multi_label_classification")
    assert output_of(config, "classification", OutputFormat()).activation == "sigmoid"
    assert output_of(transformers.ViTConfig(), "classification", OutputFormat()).activation is None
