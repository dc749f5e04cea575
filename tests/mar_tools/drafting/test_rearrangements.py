"""Boxes and scores in other dimensions become what a recipe's `output:` reads, by a file with `decode`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mar_tools.drafting.drafts import without_notes
from mar_tools.drafting.output_forms import read_outputs
from vision_serving.graphs.output_decoder import OutputDecoder
from vision_serving.graphs.outputs import OutputFormat

SIZE = (64, 96)
GENERATOR = torch.Generator().manual_seed(0)
CENTRES = torch.rand(2, 50, 2, generator=GENERATOR) * torch.tensor([96.0, 64.0])
BOXES = torch.cat((CENTRES - 5, CENTRES + 5), dim=2)
SCORES = torch.rand(2, 50, generator=GENERATOR) * 0.9 + 0.05
CLASSES = torch.arange(50).remainder(4).repeat(2, 1)
DENSE = torch.rand(2, 50, 3, generator=GENERATOR) * 0.9 + 0.05
PARTS = torch.tensor([96.0, 64, 96, 64])
IMAGES = torch.zeros(2, 3, *SIZE)
CASES = [
    pytest.param(
        {"dets": torch.cat((BOXES, SCORES[..., None]), 2), "labels": CLASSES.float()}, {}, SCORES, id="MMDetection"
    ),
    pytest.param({"tmp_16": BOXES, "concat_14.tmp_0": DENSE.transpose(1, 2)}, {}, DENSE, id="PaddleDetection"),
    pytest.param({"boxes": (BOXES / PARTS)[:, :, None], "confs": DENSE}, {"normalized": True}, DENSE, id="YOLOv4"),
    pytest.param(
        {
            "detection_out": torch.cat(
                (torch.zeros(2, 50, 1), CLASSES[..., None] + 1.0, SCORES[..., None], BOXES / PARTS), 2
            )[:, None]
        },
        {"normalized": True, "background": "first"},
        SCORES,
        id="Caffe",
    ),
]


@pytest.mark.parametrize(("outputs", "form", "scores"), CASES)
def test_the_file_gives_the_boxes_scores_and_classes(
    tmp_path: Path, outputs: Mapping[str, Tensor], form: dict[str, Any], scores: Tensor
) -> None:
    reading = read_outputs(outputs, SIZE, 2)
    assert without_notes(reading.output) == {"decode": "decode_boxes.py", **form}
    for name, content in reading.files.items():
        (tmp_path / name).write_bytes(content)
    output = OutputFormat.model_validate(without_notes(reading.output)).located_in(tmp_path)
    given = next(iter(outputs.values())) if len(outputs) == 1 else outputs
    found = OutputDecoder("detection", output, SIZE)(given, IMAGES)
    torch.testing.assert_close(found["boxes"], BOXES)
    torch.testing.assert_close(found["scores"], scores)
    if "class_ids" in found:
        assert found["class_ids"].tolist() == CLASSES.tolist()
