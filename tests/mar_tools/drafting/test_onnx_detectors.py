"""Detectors of others as ONNX files: what beside the picture they take, and what no engine can batch."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from fakes import Sized

from mar_tools.drafting.drafts import Hints, write_draft
from mar_tools.drafting.forms import draft_recipe
from mar_tools.models.checkpoints import load_checkpoint
from mar_tools.models.recipes import read_recipe
from vision_serving.errors import ConfigError

HEIGHT, WIDTH = 32, 64


def test_a_draft_of_a_file_that_is_told_the_size_needs_no_word_about_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    inputs = {"images": torch.rand(2, 3, HEIGHT, WIDTH), "orig_target_sizes": torch.tensor([[WIDTH, HEIGHT]] * 2)}
    torch.onnx.export(
        Sized().eval(),
        tuple(inputs.values()),
        tmp_path / "m.onnx",
        input_names=list(inputs),
        output_names=["labels", "boxes", "scores"],
        dynamic_shapes=({0: torch.export.Dim.DYNAMIC},) * 2,
        external_data=False,
        verbose=False,
    )
    draft = draft_recipe(str(tmp_path / "m.onnx"), Hints())
    write_draft(draft, tmp_path / "m.yaml", "Written by a test.", force=False)
    recipe = read_recipe(tmp_path / "m.yaml")
    assert recipe.model.output.format == "boxes_scores_labels"
    network = load_checkpoint(recipe).network
    images = torch.rand(2, 3, HEIGHT, WIDTH)
    found = network(images, torch.tensor([[WIDTH, HEIGHT]] * 2))
    assert float(found["boxes"].max()) > WIDTH / 2, "it is told pixels of the model"


def test_a_detector_that_torchvision_exported_to_onnx_is_refused_with_the_way_out(tmp_path: Path) -> None:
    image = onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, [3, HEIGHT, WIDTH])
    boxes = onnx.helper.make_tensor_value_info("boxes", onnx.TensorProto.FLOAT, ["n", 4])
    rows = onnx.helper.make_node("Constant", [], ["boxes"], value=onnx.numpy_helper.from_array(np.zeros((2, 4), "f")))
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([rows], "g", [image], [boxes])), tmp_path / "m.onnx")
    with pytest.raises(ConfigError, match=r"one picture \[3, 32, 64\] .*torchvision's detectors .* model.state_dict"):
        draft_recipe(str(tmp_path / "m.onnx"), Hints())
