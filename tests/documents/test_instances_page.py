"""The snippet of docs/use/instances.md decodes what the worker writes."""

import re
from typing import Any

import numpy as np
import pytest

from mar_tools.command_line import ROOT
from vision_serving.results.masks import _count_runs, compress_counts


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
def test_the_decoder_gives_the_mask_back(share: float) -> None:
    page = (ROOT / "docs" / "use" / "instances.md").read_text(encoding="utf-8")
    [snippet] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {}
    exec(snippet, names)
    mask = np.random.default_rng(0).random((37, 53)) < share
    mask[:, 20:30] = share > 0.5
    counts = compress_counts(_count_runs(np.ascontiguousarray(mask.T), left=0, top=0, image_hw=mask.shape))
    assert (names["decode_mask"]({"size": [37, 53], "counts": counts}) == mask).all()
