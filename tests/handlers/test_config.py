from pathlib import Path
from typing import Any

import pytest
import yaml
from fakes import EXACT_16, NESTED_MERGES
from pydantic import BaseModel, ValidationError

from vision_serving.config import HandlerConfig, ImageLimits, PreprocessingConfig, ResizeConfig, read_handler_config
from vision_serving.errors import ConfigError, InvalidOptionError
from vision_serving.options import ClassificationOptions, DetectionOptions, parse_options
from vision_serving.validation import parse_config, read_yaml

HANDLER: dict[str, Any] = {"task": "detection", "backend": "eager", "artifact": "model", "preprocessing": EXACT_16}


def problem_of(model: type[BaseModel], values: object) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(model, values, "model-config.yaml")
    return str(caught.value)


def test_a_minimal_handler_section_has_the_documented_defaults() -> None:
    config = parse_config(HandlerConfig, HANDLER, "here")
    assert config.precision == "fp32"
    assert config.labels == "labels.json"
    assert config.limits.max_pixels == 50_000_000
    assert config.limits.formats == ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bakend": "eager"}, ["unknown key 'bakend'", "'backend'", "'artifact'"]),
        ({"limits": {"max_pixel": 5}}, ["unknown key 'limits.max_pixel'", "'max_pixels'", "'max_images'"]),
        ({"preprocessing": {**EXACT_16, "resize": {**EXACT_16["resize"], "sise": 5}}},
         ["unknown key 'preprocessing.resize.sise'", "'size'", "'pad_value'"]),
        ({"task": "segmentation"}, ["'task'", "'classification'", "'detection'", "got 'segmentation'"]),
        ({"precision": "int4"}, ["'precision'", "'fp32'", "'bf16'", "'int8'", "got 'int4'"]),
        ({"limits": {"max_pixels": 0}}, ["'limits.max_pixels'", "greater than 0", "got '0'"]),
        ({"options": {"score_threshold": 2}}, ["less than or equal to 1"]),
        ({"options": {"top_k": 2}}, ["unknown key 'top_k'", "'score_threshold'"]),
        ({"preprocessing": {"resize": {"mode": "stretch", "size": 5}}}, ["resize.mode", "'letterbox'", "'stretch'"]),
        ({"labels": "../words.json"}, ["'labels'", "inside the archive", "../words.json"]),
        ({"artifact": "/srv/model"}, ["'artifact'", "inside the archive", "/srv/model"]),
        ({"artifact": "a/../../model"}, ["'artifact'", "inside the archive"]),
        ({"colours": {"background": [255, 255, 256]}}, ["'colours.background.2'", "less than or equal to 255"]),
        ({"colours": {"backgroud": [0, 0, 0]}}, ["unknown key 'colours.backgroud'", "'background'", "'icc_profiles'"]),
    ],
    ids=["unknown", "unknown inside", "unknown deep inside", "task", "precision", "out of range", "option value",
         "option of another task", "mode", "labels above", "artifact of the machine",
         "artifact above", "background", "key of colours"],
)  # fmt: skip
def test_a_wrong_key_or_value_is_named_with_what_is_allowed(changes: dict[str, Any], words: list[str]) -> None:
    problem = problem_of(HandlerConfig, {**HANDLER, **changes})
    assert problem.startswith("model-config.yaml: ")
    assert "\n" not in problem
    assert [word for word in words if word not in problem] == []


@pytest.mark.parametrize("key", HANDLER)
def test_a_missing_key_is_named(key: str) -> None:
    values = {name: value for name, value in HANDLER.items() if name != key}
    assert f"missing key '{key}'" in problem_of(HandlerConfig, values)


@pytest.mark.parametrize("values", [None, [], "text", 5], ids=repr)
def test_a_section_that_is_no_mapping_is_refused(values: object) -> None:
    assert "section of keys" in problem_of(HandlerConfig, values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param({"mode": "letterbox", "size": 320}, "needs `size` as [height, width], got 320", id="letterbox"),
        pytest.param({"mode": "exact", "size": 320}, "needs `size` as [height, width], got 320", id="exact"),
        pytest.param({"mode": "shortest_edge", "size": [320, 320]}, "needs `size` as one number", id="shortest edge"),
        pytest.param({"mode": "bounded_edges", "size": 320}, "mode 'bounded_edges' needs `max_size`", id="no max_size"),
        pytest.param(
            {"mode": "exact", "size": [5, 5], "max_size": 9}, "`max_size` belongs to the modes", id="needless max_size"
        ),
        pytest.param({"mode": "cover", "size": 320}, "needs `size` as [height, width], got 320", id="cover"),
        pytest.param(
            {"mode": "exact", "size": [5, 5], "multiple_of": 16},
            "`multiple_of` belongs to mode 'shortest_edge'",
            id="multiple_of",
        ),
        pytest.param(
            {"mode": "letterbox", "size": [5, 5], "pad_value": [1, 2, 256]}, "less than or equal to 255", id="pad_value"
        ),
        pytest.param(
            {"mode": "exact", "size": [5, 5], "pad_size": [9, 9]},
            "`pad_size` needs `max_size`",
            id="pad_size without bound",
        ),
        pytest.param(
            {"mode": "bounded_edges", "size": 5, "max_size": 9, "pad_size": [8, 9]},
            "smaller than `max_size` 9",
            id="small pad_size",
        ),
        pytest.param(
            {"mode": "exact", "size": [5, 5], "pad_place": "top_left"},
            "`pad_place` belongs to mode 'letterbox'",
            id="needless pad_place",
        ),
    ],
)
def test_a_resize_whose_keys_do_not_fit_its_mode_is_refused(values: dict[str, Any], message: str) -> None:
    assert message in problem_of(ResizeConfig, values)


def test_a_format_that_pillow_cannot_read_is_refused_at_load() -> None:
    assert "JPGE" in problem_of(ImageLimits, {"formats": ["JPGE"]})


@pytest.mark.parametrize(
    "values",
    [
        {"std": (0.0, 1.0, 1.0)},
        {"mean": (0.5, 0.5)},
        {"crop": (0, 5)},
        {"color_order": "gbr"},
        {"pass_order": "pillow12"},
        {"crop": (5, 5), "resize": {"mode": "letterbox", "size": [9, 9], "pad_place": "top_left"}},
    ],
    ids=["std 0", "two channels", "crop 0", "colours", "passes", "a crop of a corner"],
)
def test_preprocessing_that_cannot_work_is_refused(values: dict[str, Any]) -> None:
    problem_of(PreprocessingConfig, {**EXACT_16, **values})


@pytest.mark.parametrize("model", [HandlerConfig, ImageLimits, ClassificationOptions, DetectionOptions])
def test_configuration_is_frozen(model: type[BaseModel]) -> None:
    config = model.model_validate(HANDLER if model is HandlerConfig else {})
    with pytest.raises(ValidationError, match="frozen"):
        setattr(config, next(iter(model.model_fields)), None)


@pytest.mark.parametrize("text", ["a," * 1001, "a:0.1," * 1001], ids=["filter", "thresholds"])
def test_more_classes_than_can_be_meant_are_not_taken_apart(text: str) -> None:
    for name in ("class_filter", "class_thresholds"):
        with pytest.raises(InvalidOptionError, match="expected at most 1000 classes"):
            parse_options(DetectionOptions, {name: text}, {})


@pytest.mark.parametrize(
    ("text", "filtered"),
    [("cat", ("cat",)), ("cat, dog", ("cat", "dog")), (["cat", 3], ("cat", 3)), (None, None), ([], ())],
    ids=["one", "commas", "list", "none", "empty list"],
)
def test_a_class_filter_is_a_list_or_comma_separated_text(text: object, filtered: object) -> None:
    assert DetectionOptions.model_validate({"class_filter": text}).class_filter == filtered


@pytest.mark.parametrize(
    ("given", "thresholds"),
    [
        ("person:0.3,dog:0.6", {"person": 0.3, "dog": 0.6}),
        (" person : 0.3 , ", {"person": 0.3}),
        ("a:b:0.3", {"a:b": 0.3}),
        ("", {}),
        ({"person": 0.3, 17: 1}, {"person": 0.3, 17: 1.0}),
    ],
    ids=["pairs", "spaces", "a colon in the label", "empty", "mapping"],
)
def test_class_thresholds_are_a_mapping_or_pairs_with_commas(given: object, thresholds: dict[Any, float]) -> None:
    assert DetectionOptions.model_validate({"class_thresholds": given}).class_thresholds == thresholds


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"class_thresholds": "person"}, ["class_thresholds", "`label:threshold`", "got 'person'"]),
        ({"class_thresholds": "dog:0.1,dog:0.2"}, ["class_thresholds", "got 'dog' twice"]),
        ({"class_thresholds": "dog:2"}, ["class_thresholds.dog", "less than or equal to 1"]),
        ({"class_thresholds": {"dog": None}}, ["class_thresholds.dog", "valid number"]),
        ({"class_thresholds": ["dog"]}, ["class_thresholds"]),
        ({"nms": "hard"}, ["'nms'", "'class_wise', 'class_agnostic', 'soft' or 'none'", "got 'hard'"]),
        ({"box_format": "cxcywh"}, ["'box_format'", "'xyxy', 'xywh', 'xyxyn' or 'xywhn'", "got 'cxcywh'"]),
        ({"tile_size": 31}, ["'tile_size'", "expected 32 to 16384 pixels, or 0 for no tiles, got 31"]),
        ({"tile_size": "640.5"}, ["'tile_size'", "valid integer"]),
        ({"tile_overlap": 0.6}, ["'tile_overlap'", "less than or equal to 0.5"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_wrong_option_of_a_detector_is_refused_with_what_is_right(options: dict[str, Any], words: list[str]) -> None:
    problem = problem_of(DetectionOptions, options)
    assert [word for word in words if word not in problem] == []


def test_options_as_text_are_numbers_after_validation() -> None:
    options = DetectionOptions.model_validate({"score_threshold": "0.4", "max_detections": "7"})
    assert (options.score_threshold, options.max_detections) == (0.4, 7)


@pytest.mark.parametrize("value", ["nan", float("nan"), float("inf"), -0.1, 1.1, "", None, [], "0,5"], ids=repr)
def test_a_threshold_outside_0_to_1_is_refused(value: object) -> None:
    with pytest.raises(ValidationError):
        DetectionOptions.model_validate({"score_threshold": value})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"a: [", "not a readable YAML file"),
        (b"\xff\xfe\x00", "not a readable YAML file"),
        (b"", "missing key 'handler'"),
        (b"- 1", "missing key 'handler'"),
        (b"handler:", "section of keys"),
        (b"!!python/object/apply:os.getcwd []", "not a readable YAML file"),
    ],
    ids=["missing", "not yaml", "not text", "empty", "a list", "empty section", "python tag"],
)
def test_a_model_config_that_cannot_be_read_names_the_file(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "model-config.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        read_handler_config(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (NESTED_MERGES, "anchor or alias"),
        (b"task: &once classification", "anchor or alias"),
        (b"{<<: {task: x}, task: y}", "merge key"),
        (b"limits: {max_images: 1, max_images: 2}", "the key 'max_images' twice"),
        (b"a: !!binary aGk=", "the tag"),
        (b"a: !local {b: 1}", "the tag"),
        (b"[" * 60 + b"]" * 60, "over 50 levels"),
        (b"? " * 100_000, "over 50 levels"),
        (b"a: 1" + b":59" * 200_000, "of 600001 characters"),
        (b"a: 0x" + b"f" * 900_000, "of 900002 characters"),
        (b"a: 1" + b":59" * 300 + b".5", "of 903 characters"),
        (b"[" + b"a," * 300_000 + b"]", "over 200,000 values"),
        (b"# " + b"x" * (1 << 20), "over 1,048,576 bytes"),
        (b"a: 1\n---\na: 2", "single document"),
        (b"? [a]\n: 1\n? {b: 1}\n: 2", "unhashable"),
    ],
    ids=["merges of merges", "anchor", "merge key", "double key", "binary", "own tag", "deep", "deep keys",
         "number in sixties", "hexadecimal", "float in sixties", "many", "large", "two documents", "key that is a map"],
)  # fmt: skip
def test_yaml_that_costs_more_than_its_bytes_or_that_readers_read_as_two_things_is_refused(
    content: bytes, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "model-config.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="not a readable YAML file") as caught:
        read_yaml(path)
    assert reason in str(caught.value)


def test_a_file_without_an_end_is_read_up_to_the_limit() -> None:
    with pytest.raises(ConfigError, match="over 1,048,576 bytes"):
        read_yaml(Path("/dev/zero"))


def test_a_folder_is_not_a_yaml_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a readable YAML file"):
        read_yaml(tmp_path)


def test_a_written_section_reads_back_the_same(tmp_path: Path) -> None:
    config = parse_config(HandlerConfig, {**HANDLER, "options": {"class_filter": ["cat"]}}, "here")
    path = tmp_path / "model-config.yaml"
    path.write_text(yaml.safe_dump({"handler": config.model_dump(mode="json", exclude_none=True)}))
    assert read_handler_config(path) == config
