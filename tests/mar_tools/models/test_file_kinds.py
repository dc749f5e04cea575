"""What people hold in place of a model, and what they are told to do."""

import gzip
import subprocess
import sys
import zipfile
from pathlib import Path

import openvino  # type: ignore[import-untyped]
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mar_tools.models.file_kinds import find_kind
from mar_tools.models.other_files import IN_FOLDER
from mar_tools.models.weight_files import look_into
from mar_tools.models.weights import check_holds_weights
from vision_serving.errors import ConfigError

AUTHOR = "ask its author for the PyTorch checkpoint that it was made from, or for an ONNX file"
ULTRALYTICS = b'\x80\x07\x00\x00{"description": "Ultralytics YOLO11n model", "task": "detect", "names": {"0": '
FLAX = b"\x81\xa6params\x81\xa6Conv_0\x81\xa6kernel\xc72\x01\x93\x92\x03\x03\xa7float32\xc4$" + bytes(36)
CORE_ML = b"\x08\x04\x12\x94\x02\n\x17\n\x07input_1\xa2\x06:\n+com.github.apple.coremltools.source pytorch"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.pth", b"", "an empty file"),
        ("c.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        ("c.pth", b"<!DOCTYPE html><html>", "a page of a website"),
        ("c.pth", b'\n<?xml version="1.0"?>\n<!DOCTYPE html PUBLIC>\n<html>', "a page of a website"),
        ("c.pth", b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "when it refuses a download"),
        ("c.xml", b'<?xml version="1.0"?>\n<opencv_storage>\n<cascade>', "an XML file of OpenCV"),
        ("c.pth", b"\x89HDF\r\n", "Keras"),
        ("c.pth", gzip.compress(b"weights", mtime=0), "compressed by gzip; unpack it"),
        ("c.pth", bytes(2000), "begins with zeros"),
        ("c.pth", b"\x80\x04\x95\x10", "a Python pickle of protocol 4"),
        ("c.pth", b"PK\x03\x04 cut", "damaged, or only a part"),
        ("c.engine", b"ftrt\x00\x00\x00\x00\xe8", f"a TensorRT engine, .*{AUTHOR}"),
        ("c.pth", ULTRALYTICS, f"a TensorRT engine, .*{AUTHOR}"),
        ("c.plan", b"\x01\x02\x03\x04", f"by its name a TensorRT engine, .*{AUTHOR}"),
        ("c.bin", CORE_ML, f"a Core ML model of Apple; .*{AUTHOR}"),
        ("c.mlmodel", b"\x08\x01\x12\x02", f"by its name a Core ML model of Apple; .*{AUTHOR}"),
        ("flax_model.msgpack", FLAX, rf"weights of Flax \(JAX\); .*{AUTHOR}"),
        ("c.pte", b"\x1c\x00\x00\x00ET12\x00", f"a program of ExecuTorch; .*{AUTHOR}"),
        ("c.tflite", b"\x1c\x00\x00\x00TFL3\x00", "a TensorFlow Lite model"),
        ("c.pb", b"\n\x0f\n\x05input", "by its name a TensorFlow model; .*tf2onnx"),
        ("c.pdiparams", b"\x00\x00\x00\x00\x01", "by its name a Paddle model; .*paddle2onnx"),
        ("c.json", b'{"epoch": 3}', "a JSON file"),
        ("c.pth", b"\x13\x37 something else", "damaged, or not a weights file"),
    ],
)
def test_what_is_no_model_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        look_into(tmp_path / name)


def test_both_files_of_openvino_are_known(tmp_path: Path) -> None:
    model = openvino.convert_model(nn.Conv2d(3, 4, 3).eval(), example_input=torch.rand(1, 3, 8, 8))
    openvino.save_model(model, tmp_path / "m.xml")
    for name, told in {"m.xml": "the .xml of", "m.bin": "by the .xml beside it the weights of"}.items():
        with pytest.raises(ConfigError, match=f"{told} an OpenVINO model; .*{AUTHOR}"):
            find_kind(tmp_path / name)
    (tmp_path / "m.bin").write_bytes(b"BZh" + bytes(64))  # its numbers may begin as any other file does
    with pytest.raises(ConfigError, match=r"by the \.xml beside it the weights of an OpenVINO model"):
        find_kind(tmp_path / "m.bin")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "an empty zip archive"),
        (["arr_0.npy", "arr_1.npy"], "NumPy arrays"),
        (["model/saved_model.pb", "model/variables/variables.index"], "a zip of a TensorFlow model"),
        (["m.mlpackage/Manifest.json"], "a zip of a Core ML model"),
        (["config.json", "model.weights.h5"], "a Keras model"),
        (["best.pt", "readme.txt"], r"a zip archive of \['best.pt', 'readme.txt'\]; unpack it"),
    ],
)
def test_a_zip_is_named_by_what_is_in_it(tmp_path: Path, names: list[str], message: str) -> None:
    with zipfile.ZipFile(tmp_path / "c.pth", "w") as archive:
        for name in names:
            archive.writestr(name, b"content")
    with pytest.raises(ConfigError, match=message):
        find_kind(tmp_path / "c.pth")


@pytest.mark.parametrize("name", IN_FOLDER)
def test_a_folder_is_named_by_what_is_in_it(tmp_path: Path, name: str) -> None:
    file = tmp_path / name.replace("*", "model")
    file.parent.mkdir(exist_ok=True)
    file.touch()
    with pytest.raises(ConfigError) as refused:
        find_kind(tmp_path)
    assert str(refused.value) == f"{tmp_path}: expected a file, got {IN_FOLDER[name]}"


def test_a_link_that_leads_to_nothing_says_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "model.pth").symlink_to("blobs/0123")
    with pytest.raises(ConfigError, match=r"model.pth: a link to blobs/0123, where nothing is"):
        look_into(tmp_path / "model.pth")


def split(folder: Path, suffix: str) -> dict[str, torch.Tensor]:
    """Save a state dict in three files and their index, as Hugging Face does."""
    state = {name: torch.rand(2, 2) for name in ("a.weight", "b.weight", "c.weight")}
    files = {name: f"model-{number:05}-of-00003{suffix}" for number, name in enumerate(state, 1)}
    save = save_file if suffix == ".safetensors" else torch.save
    for name, file in files.items():
        save({name: state[name]}, folder / file)  # type: ignore[operator]
    index = f'{{"metadata": {{}}, "weight_map": {files!s}}}'.replace("'", '"')
    (folder / f"model{suffix}.index.json").write_text(index)
    return state


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_a_model_in_several_files_is_read_whole(tmp_path: Path, suffix: str) -> None:
    state = split(tmp_path, suffix)
    for name in (f"model-00002-of-00003{suffix}", f"model{suffix}.index.json"):
        [found] = look_into(tmp_path / name).states
        assert found.tensors.keys() == state.keys()
        assert all(torch.equal(found.tensors[name], values) for name, values in state.items())


def test_a_part_of_a_model_names_the_others(tmp_path: Path) -> None:
    split(tmp_path, ".safetensors")
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    for name, what in {
        "model-00001-of-00003.safetensors": "a part of a model in 3 files",
        "model.safetensors.index.json": "the index of a model in 3 files",
    }.items():
        with pytest.raises(ConfigError, match=f"{what}, and model-00002-of-00003.safetensors is not beside it"):
            look_into(tmp_path / name)


def test_an_index_leads_to_no_other_folder(tmp_path: Path) -> None:
    for named in ("../model.safetensors", "model.safetensors.index.json"):
        (tmp_path / "model.safetensors.index.json").write_text(f'{{"weight_map": {{"a": "{named}"}}}}')
        with pytest.raises(ConfigError, match="expected files of weights that lie beside it"):
            look_into(tmp_path / "model.safetensors.index.json")


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"optimizer_state_dict": state, "epoch": 3}])
def test_an_optimizer_alone_is_told(tmp_path: Path, wrap: object) -> None:
    network = nn.Linear(2, 2)
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.rand(1, 2)).sum().backward()
    optimizer.step()
    torch.save(wrap(optimizer.state_dict()), tmp_path / "o.pth")  # type: ignore[operator]
    with pytest.raises(ConfigError, match=r"what a training goes on with .* and no network"):
        check_holds_weights(look_into(tmp_path / "o.pth"))


def test_a_refusal_by_kind_waits_for_no_pytorch(tmp_path: Path) -> None:
    """Otherwise the answer takes seconds."""
    save_file({"base.query.lora_A.weight": torch.zeros(1)}, tmp_path / "adapter_model.safetensors")
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes(b"cut")
    (tmp_path / "m.engine").write_bytes(b"ftrt")
    program = (
        "import sys; from mar_tools.drafting.drafts import Hints; from mar_tools.drafting.forms import draft_recipe\n"
        "for name in sys.argv[1:]:\n    try:\n        draft_recipe(name, Hints())\n"
        "    except RuntimeError as error:\n        print(error)\n"
        "print('torch' in sys.modules)"
    )
    files = [str(path) for path in sorted(tmp_path.iterdir())]
    ran = subprocess.run([sys.executable, "-c", program, *files], capture_output=True, text=True, timeout=60)
    adapter, engine, part, imported = ran.stdout.splitlines()
    assert "it is an adapter (LoRA)" in adapter
    assert "a TensorRT engine" in engine
    assert "a part of a model in 2 files" in part
    assert imported == "False"
