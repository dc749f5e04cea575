"""Files of all forms become recipes: what they say is read, and what they do not say is named."""

import shlex
from collections.abc import Callable
from pathlib import Path

import onnx
import orjson
import pytest
import torch
import torchvision
from conftest import RunHere
from onnx import TensorProto, helper
from safetensors.torch import save_file
from torch import nn

from mar_tools.command_line import ROOT
from mar_tools.drafting.drafts import Draft, Hints, render, without_notes
from mar_tools.drafting.forms import draft_recipe
from mar_tools.models.checkpoints import load_checkpoint
from mar_tools.models.file_facts import fit_onnx
from mar_tools.models.recipes import Recipe, read_recipe
from vision_serving.config import PreprocessingConfig
from vision_serving.errors import ConfigError
from vision_serving.graphs.onnx_network import OnnxNetwork

SIZE = (64, 64)  # 64 + 16 + 4 cells


def written(draft: Draft, folder: Path) -> Recipe:
    """Return the recipe as a build reads it."""
    for name, content in draft.files.items():
        (folder / name).write_bytes(content)
    path = folder / f"{draft.name}.yaml"
    path.write_text(render(draft.recipe, folder, "Written by a test."))
    return read_recipe(path)


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return dict(torchvision.models.squeezenet1_1(num_classes=3).state_dict())


def prefixed(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: values for name, values in state.items()}


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("flowers.pth", lambda state, path: torch.save(state, path)),
        ("flowers.pth.tar", lambda state, path: torch.save({"state_dict": state, "epoch": 3}, path)),
        (
            "flowers.ckpt",
            lambda state, path: torch.save({"state_dict": {f"model.{k}": v for k, v in state.items()}}, path),
        ),
        ("flowers.bin", lambda state, path: torch.save(prefixed("module.", state), path)),
        ("flowers.safetensors", save_file),
    ],
    ids=["pth", "tar", "ckpt", "bin", "safetensors"],
)
def test_weights_tell_their_architecture_and_their_classes(
    name: str, save: Callable[..., None], state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    save(state, tmp_path / name)
    recipe = written(draft_recipe(str(tmp_path / name), Hints()), tmp_path)
    assert (recipe.name, recipe.task) == ("flowers", "classification")
    assert (recipe.model.source, recipe.model.name) == ("torchvision", "squeezenet1_1")
    assert recipe.model.arguments == {"num_classes": 3}
    assert recipe.model.weights == name


def test_changed_weights_are_refused_with_what_does_not_fit(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    changed = {name.replace("classifier.1", "classifier.1.0"): values for name, values in state.items()}
    torch.save(changed, tmp_path / "changed.pth")
    with pytest.raises(
        ConfigError,
        match=r"of its 52 tensors fit torchvision squeezenet1_1, and classifier\.1\.0\.weight \(3, 512, 1, 1\)",
    ):
        draft_recipe(str(tmp_path / "changed.pth"), Hints())
    torch.save({"a.weight": torch.zeros(2, 2)}, tmp_path / "other.pth")
    with pytest.raises(ConfigError, match=r"no model of torchvision or timm has its 1 tensors \(a\.weight, \.\.\.\)"):
        draft_recipe(str(tmp_path / "other.pth"), Hints())


def test_what_needs_no_search_is_told_before_one(
    state: dict[str, torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = {"base_model.model.vit.query.lora_A.weight": torch.zeros(2, 2)}
    torch.save(adapter, tmp_path / "adapter_model.bin")
    with pytest.raises(ConfigError, match=r"an adapter \(LoRA\), .*merge it into its network first"):
        draft_recipe(str(tmp_path / "adapter_model.bin"), Hints())
    torch.save({"optimizer": {"state": {}, "param_groups": []}, "epoch": 3}, tmp_path / "optimizer.pt")
    with pytest.raises(ConfigError, match=r"what a training goes on with \(optimizer\) and no network"):
        draft_recipe(str(tmp_path / "optimizer.pt"), Hints())
    (tmp_path / "config.json").write_text('{"architectures": ["ViTForImageClassification"]}')
    save_file({"vit.cls_token": torch.zeros(2, 2)}, tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match=r"config\.json beside it tells of what network it is; name the folder"):
        draft_recipe(str(tmp_path / "model.safetensors"), Hints())
    assert "comparing" not in capsys.readouterr().err
    (tmp_path / "config.json").unlink()
    save_file(state, tmp_path / "flowers.safetensors")
    draft_recipe(str(tmp_path / "flowers.safetensors"), Hints())
    assert "comparing 52 tensors with every model of torchvision and timm" in capsys.readouterr().err


def test_a_link_that_leads_to_nothing_is_no_name_of_a_model(tmp_path: Path) -> None:
    (tmp_path / "resnet18").symlink_to("gone.pth")
    with pytest.raises(ConfigError, match=r"resnet18: a link to gone\.pth, where nothing is"):
        draft_recipe(str(tmp_path / "resnet18"), Hints())


def test_weights_in_several_files_are_drafted_by_any_of_them(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    names = list(state)
    for number, part in enumerate((names[:20], names[20:]), 1):
        save_file({name: state[name] for name in part}, tmp_path / f"model-{number:05}-of-00002.safetensors")
    recipe = written(draft_recipe(str(tmp_path / "model-00002-of-00002.safetensors"), Hints()), tmp_path)
    network = load_checkpoint(recipe).network.state_dict()
    assert all(torch.equal(network[name], values) for name, values in state.items())


def test_a_program_tells_its_classes_and_does_not_run(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)).eval()
    torch.jit.trace(network, torch.rand(1, 3, 32, 32)).save(str(tmp_path / "doors.pt"))  # type: ignore[no-untyped-call]
    draft = draft_recipe(str(tmp_path / "doors.pt"), Hints())
    recipe = written(draft, tmp_path)
    assert (recipe.model.source, recipe.model.file, recipe.task) == ("torchscript", "doors.pt", "classification")
    assert len(orjson.loads(draft.files["doors.labels.json"])) == 5
    assert any("size, crop, mean and std" in note for note in draft.notes)


@pytest.mark.parametrize(
    ("name", "task", "weights"),
    [
        ("resnet18", "classification", "IMAGENET1K_V1"),
        ("fcos_resnet50_fpn", "detection", "COCO_V1"),
        ("mobilenetv4_conv_small.e2400_r224_in1k", "classification", "pretrained"),
    ],
)
def test_a_published_name_is_enough(name: str, task: str, weights: str, tmp_path: Path) -> None:
    recipe = written(draft_recipe(name, Hints()), tmp_path)
    assert (recipe.model.name, recipe.task, recipe.model.weights) == (name, task, weights)


def test_names_that_nobody_publishes_are_refused() -> None:
    for name in ("resnet19", "deeplabv3_resnet50"):
        with pytest.raises(ConfigError, match=r"no such file|no classifier or detector"):
            draft_recipe(name, Hints())


def test_a_folder_of_hugging_face_tells_its_task(tmp_path: Path) -> None:
    folder = tmp_path / "leaves"
    folder.mkdir()
    config = {"architectures": ["ViTForImageClassification"], "id2label": {"0": "rust", "1": "scab"}}
    (folder / "config.json").write_bytes(orjson.dumps(config))
    (folder / "preprocessor_config.json").write_text("{}")
    draft = draft_recipe(str(folder), Hints())
    recipe = written(draft, tmp_path)
    assert (recipe.model.source, recipe.model.name, recipe.task) == ("huggingface", "leaves", "classification")
    assert draft.notes == ()
    (folder / "config.json").write_bytes(orjson.dumps({"architectures": ["BertForMaskedLM"]}))
    with pytest.raises(ConfigError, match=r"architectures .'BertForMaskedLM'.; expected one that ends with"):
        draft_recipe(str(folder), Hints())


def save_onnx(path: Path, shapes: dict[str, tuple[int, ...]], metadata: dict[str, str]) -> Path:
    """An ONNX file that gives constants of these shapes, whatever the picture."""
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, *SIZE])
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    nodes = [
        helper.make_node("ConstantOfShape", [f"{name}_shape"], [name], value=helper.make_tensor("v", 1, [1], [0.25]))
        for name in shapes
    ]
    weights = [
        helper.make_tensor(f"{name}_shape", TensorProto.INT64, [len(shape)], shape) for name, shape in shapes.items()
    ]
    model = helper.make_model(helper.make_graph(nodes, "g", [image], outputs, weights))
    helper.set_model_props(model, metadata)
    onnx.save(model, path)
    return path


def test_the_metadata_of_ultralytics_tell_all(tmp_path: Path) -> None:
    metadata = {"task": "detect", "names": "{0: 'helmet', 1: 'head'}", "imgsz": "[64, 64]", "stride": "32"}
    path = save_onnx(tmp_path / "helmets.onnx", {"output0": (2, 6, 84)}, metadata)
    draft = draft_recipe(str(path), Hints())
    recipe = written(draft, tmp_path)
    assert (recipe.task, recipe.model.output.format, recipe.model.output.layout) == ("detection", "yolo", "columns")
    assert recipe.preprocessing.resize.size == SIZE  # type: ignore[union-attr]
    assert recipe.options == {"score_threshold": 0.25, "iou_threshold": 0.7}
    assert orjson.loads(draft.files["helmets.labels.json"]) == ["helmet", "head"]


YOLO = {"format": "yolo", "layout": "columns", "objectness": False}
RT_DETR = {**YOLO, "layout": "rows", "normalized": True}


@pytest.mark.parametrize(
    ("shape", "metadata", "output", "mode"),
    [
        ((1, 300, 6), {"task": "detect"}, {"format": "end_to_end"}, "letterbox"),
        ((1, 300, 6), {"task": "detect", "description": "Ultralytics rtdetr-l model"}, RT_DETR, "exact"),
        ((1, 300, 6), {"task": "detect", "names": "['a', 'b', 'c']"}, {"format": "end_to_end"}, "letterbox"),
        ((1, 300, 7), {"task": "detect", "names": "['a', 'b', 'c']"}, RT_DETR, "exact"),
        ((1, 300, 7), {"task": "obb", "end2end": "True"}, {"format": "end_to_end", "box_format": "xywhr"}, "letterbox"),
        ((1, 300, 38), {"task": "segment", "end2end": "True"}, {"format": "end_to_end", "masks": True}, "letterbox"),
        ((1, 7, 84), {"task": "obb", "end2end": "False"}, {**YOLO, "box_format": "xywhr"}, "letterbox"),
    ],
    ids=[
        "rows",
        "RT-DETR of two classes",
        "rows of three classes",
        "RT-DETR",
        "turned rows",
        "masks",
        "turned columns",
    ],
)
def test_heads_of_ultralytics_that_choose_their_boxes_are_told(
    shape: tuple[int, ...], metadata: dict[str, str], output: dict[str, object], mode: str, tmp_path: Path
) -> None:
    noted = {"names": "{0: 'helmet', 1: 'head'}", "imgsz": "[64, 64]", **metadata}
    draft = draft_recipe(str(save_onnx(tmp_path / "m.onnx", {"output0": shape}, noted)), Hints())
    recipe = written(draft, tmp_path)
    assert draft.recipe["model"]["output"] == output
    assert recipe.preprocessing.resize.mode == mode  # type: ignore[union-attr]
    assert (recipe.options.get("nms") == "none") == (shape[1] == 300)


@pytest.mark.parametrize(
    ("task", "rows", "end2end", "output"),
    [
        ("detect", 6, False, {"format": "yolo", "layout": "columns", "objectness": False}),
        ("detect", 6, True, {"format": "end_to_end"}),
        ("obb", 7, True, {"format": "end_to_end", "box_format": "xywhr"}),
        ("obb", 7, False, {"format": "yolo", "layout": "columns", "objectness": False, "box_format": "xywhr"}),
    ],
)
def test_the_metadata_of_ultralytics_are_read_from_torchscript_too(
    task: str, rows: int, end2end: bool, output: dict[str, object], tmp_path: Path
) -> None:
    network = nn.Sequential(nn.Conv2d(3, rows, 8, 8), nn.Flatten(2)).eval()
    metadata = {"task": task, "names": {"0": "helmet", "1": "head"}, "imgsz": [64, 64], "end2end": end2end}
    program = torch.jit.trace(network, torch.rand(1, 3, *SIZE))  # type: ignore[no-untyped-call]
    program.save(str(tmp_path / "helmets.torchscript"), _extra_files={"config.txt": orjson.dumps(metadata)})
    draft = draft_recipe(str(tmp_path / "helmets.torchscript"), Hints())
    recipe = written(draft, tmp_path)
    assert (recipe.name, recipe.task, recipe.model.source) == ("helmets", "detection", "torchscript")
    assert draft.recipe["model"]["output"] == output
    assert recipe.preprocessing.resize.size == SIZE  # type: ignore[union-attr]
    assert orjson.loads(draft.files["helmets.labels.json"]) == ["helmet", "head"]


def save_classifier(
    path: Path, classes: int = 3, metadata: dict[str, str] | None = None, steps: tuple[tuple[str, float], ...] = ()
) -> Path:
    """An ONNX file whose scores follow the mean colour; it begins with `steps` of constants."""
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, *SIZE])
    weights = [helper.make_tensor("mix", TensorProto.FLOAT, [3, classes], torch.linspace(-9, 9, 3 * classes).tolist())]
    nodes, name = [], "images"
    for number, (operation, by) in enumerate(steps):
        weights.append(helper.make_tensor(f"c{number}", TensorProto.FLOAT, [1, 3, 1, 1], [by] * 3))
        nodes.append(helper.make_node(operation, [name, f"c{number}"], [f"s{number}"]))
        name = f"s{number}"
    nodes += [
        helper.make_node("GlobalAveragePool", [name], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["colour"]),
        helper.make_node("MatMul", ["colour", "mix"], ["scores"]),
    ]
    outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", classes])]
    model = helper.make_model(helper.make_graph(nodes, "g", [image], outputs, weights))
    helper.set_model_props(model, metadata or {})
    onnx.save(model, path)
    return path


def test_names_in_metadata_are_labels_where_they_are_as_many(tmp_path: Path) -> None:
    path = save_classifier(tmp_path / "turned.onnx", 4, {"character": "0\n90\n180\n270"})
    assert orjson.loads(draft_recipe(str(path), Hints()).files["turned.labels.json"]) == ["0", "90", "180", "270"]
    other = save_classifier(tmp_path / "other.onnx", 3, {"character": "0\n90\n180\n270"})
    placeholders = orjson.loads(draft_recipe(str(other), Hints()).files["other.labels.json"])
    assert placeholders == ["class 0", "class 1", "class 2"]


@pytest.mark.parametrize(
    ("option", "given", "told"),
    [
        ("--labels", "absent.json", "absent.json: no such file"),
        ("--labels", "folder", "folder: not a readable text file (Is a directory)"),
        ("--labels", "empty.txt", "empty.txt: expected a list of labels"),
        ("--images", "absent", "absent: no such folder; expected a folder of pictures that the model knows"),
    ],
)
def test_files_that_are_given_are_read_before_the_model(
    option: str, given: str, told: str, tmp_path: Path, run_here: RunHere
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.txt").touch()
    refused = run_here("new_recipe.py", tmp_path / "absent.pth", option, tmp_path / given)
    assert refused.returncode == 1
    assert told in refused.stderr


def test_the_printed_command_finds_the_build_beside_it_and_a_name_with_blanks(
    tmp_path: Path, run_here: RunHere
) -> None:
    model = save_classifier(tmp_path / "doors.onnx", 4)
    written = run_here("new_recipe.py", model, "--output", tmp_path / "my doors.yaml")
    assert written.returncode == 0, written.stderr
    command = written.stdout.splitlines()[-1].removeprefix("next: ")
    assert shlex.split(command) == ["python", str(ROOT / "scripts" / "build_model.py"), str(tmp_path / "my doors.yaml")]


def test_a_classifier_gives_its_features_where_that_is_asked(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "leaves.pth")
    draft = draft_recipe(str(tmp_path / "leaves.pth"), Hints(task="embedding"))
    assert (draft.files, "labels" in draft.recipe, without_notes(draft.recipe["task"])) == ({}, False, "embedding")
    assert not any("names of the classes" in note for note in draft.notes)
    recipe = written(draft, tmp_path)
    assert (recipe.task, recipe.model.arguments) == ("embedding", {"num_classes": 3})
    with pytest.raises(ConfigError, match="a model of classification, not of detection; leave out --task"):
        draft_recipe(str(tmp_path / "leaves.pth"), Hints(task="detection"))


@pytest.mark.parametrize(
    ("steps", "mean", "std"),
    [
        ((), 0.485, 0.229),
        ((("Div", 255.0),), 0, 1 / 255),
        ((("Sub", 123.7), ("Div", 58.4)), 0, 1 / 255),
        ((("Sub", 123.7),), 0, 1 / 255),
        ((("Mul", 1 / 127.5), ("Sub", 1.0)), 0, 1 / 255),
        ((("Sub", 0.485), ("Div", 0.229)), 0, 1),
        ((("Mul", 2.0), ("Sub", 1.0)), 0, 1),
        ((("Mul", 255.0), ("Sub", 123.7)), 0, 1),
        ((("Div", 1.0),), 0.485, 0.229),
    ],
    ids=["none", "255", "mean of 255", "Caffe", "127.5", "mean of 1", "2x - 1", "Caffe of 1", "1"],
)
def test_the_first_steps_tell_which_pixels_a_file_takes(
    steps: tuple[tuple[str, float], ...], mean: float, std: float, tmp_path: Path
) -> None:
    recipe = written(draft_recipe(str(save_classifier(tmp_path / "c.onnx", steps=steps)), Hints()), tmp_path)
    assert isinstance(recipe.preprocessing, PreprocessingConfig)
    assert recipe.preprocessing.mean[0] == pytest.approx(mean)
    assert recipe.preprocessing.std[0] == pytest.approx(std, abs=1e-6)


def test_a_file_of_uint8_is_drafted_so_that_it_builds(tmp_path: Path) -> None:
    path = save_classifier(tmp_path / "levels.onnx", steps=(("Div", 255.0),))
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    model.graph.node.insert(0, helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT))
    model.graph.node[1].input[0] = "floats"
    onnx.save(model, path)
    recipe = written(draft_recipe(str(path), Hints()), tmp_path)
    assert isinstance(recipe.preprocessing, PreprocessingConfig)
    assert fit_onnx(OnnxNetwork(path), recipe.preprocessing).std == (1.0, 1.0, 1.0)


def test_a_program_that_takes_one_channel_is_given_gray(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)).eval()
    torch.jit.trace(network, torch.rand(1, 1, 32, 32)).save(str(tmp_path / "gray.pt"))  # type: ignore[no-untyped-call]
    recipe = written(draft_recipe(str(tmp_path / "gray.pt"), Hints()), tmp_path)
    assert isinstance(recipe.preprocessing, PreprocessingConfig)
    assert (recipe.preprocessing.channels, recipe.preprocessing.mean) == (1, (0.0,))


def test_what_a_user_says_is_compared_with_what_the_file_says(
    state: dict[str, torch.Tensor], tmp_path: Path, run_here: RunHere
) -> None:
    torch.save(state, tmp_path / "leaves.pth")
    (tmp_path / "labels.txt").write_text("oak\nelm\n")
    with pytest.raises(ConfigError, match=r"labels\.txt: it has 2 names, and the model 3 classes"):
        draft_recipe(str(tmp_path / "leaves.pth"), Hints(labels=tmp_path / "labels.txt", architecture="squeezenet1_1"))
    with pytest.raises(ConfigError, match=r"--architecture squeezenet1: .* has this name; near to it: squeezenet1_"):
        draft_recipe(str(tmp_path / "leaves.pth"), Hints(architecture="squeezenet1"))
    done = run_here("new_recipe.py", tmp_path / "leaves.pth", "--name", "my model")
    assert (done.returncode, "--name 'my model': expected letters, digits" in done.stderr) == (1, True)


def test_small_networks_with_few_classes_are_found(tmp_path: Path) -> None:
    torch.save(torchvision.models.shufflenet_v2_x0_5(num_classes=3).state_dict(), tmp_path / "a.pth")
    recipe = written(draft_recipe(str(tmp_path / "a.pth"), Hints()), tmp_path)
    assert (recipe.model.name, recipe.model.arguments) == ("shufflenet_v2_x0_5", {"num_classes": 3})
