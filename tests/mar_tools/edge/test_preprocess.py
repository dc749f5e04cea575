"""The NumPy and the JavaScript that folders carry prepare pictures as the server does, to one level."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mar_tools.edge.carried.preprocess import preprocess
from mar_tools.edge.export import CARRIED
from vision_serving.config import PreprocessingConfig
from vision_serving.pictures.resizing import preprocess_images

PICTURES = 200
RESIZES: dict[str, dict[str, Any]] = {
    "shortest edge": {"mode": "shortest_edge", "size": 40},
    "shortest edge, bounded": {"mode": "shortest_edge", "size": 40, "max_size": 60, "multiple_of": 8},
    "exact": {"mode": "exact", "size": [33, 47]},
    "cover": {"mode": "cover", "size": [40, 32]},
    "letterbox": {"mode": "letterbox", "size": [48, 64]},
    "letterbox at the top left": {
        "mode": "letterbox", "size": [48, 64], "pad_place": "top_left", "pad_value": [1, 2, 3],
    },
    "fixed height": {"mode": "fixed_height", "size": [16, 80], "pad_value": 0},
    "bounded edges": {"mode": "bounded_edges", "size": 40, "max_size": 64},
    "bounded edges, filled up": {"mode": "bounded_edges", "size": 40, "max_size": 64, "pad_size": [64, 72]},
}  # fmt: skip
INTERPOLATIONS = ("bilinear", "bicubic", "nearest", "nearest-exact", "lanczos", "box", "hamming")


def draw(seed: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return a picture of any size: smooth, with hard edges, and noise, where filters overshoot."""
    random = np.random.default_rng(seed)
    height, width = (int(side) for side in random.choice([1, 2, 7, 23, 40, 64, 97, 180, 301], 2))
    y, x = np.mgrid[:height, :width, :1][:2]
    waves = 127 + 120 * np.sin(y / random.uniform(1, 30) + x / random.uniform(1, 30) + np.arange(3))
    picture = np.where(random.random((height, width, 1)) < 0.2, 255 * random.integers(0, 2, (height, width, 3)), waves)
    return picture.astype(np.uint8)


def choose(seed: int) -> dict[str, Any]:
    """Return preprocessing.json of one of all combinations."""
    random = np.random.default_rng([seed, 1])
    resize = RESIZES[list(RESIZES)[seed % len(RESIZES)]]
    filled = "pad_size" in resize or resize.get("pad_place") == "top_left"
    needs_crop = resize["mode"] == "cover" or (resize["mode"] == "shortest_edge" and "max_size" not in resize)
    config = PreprocessingConfig.model_validate(
        {
            "resize": resize,
            "crop": [36, 30] if needs_crop or (not filled and random.random() < 0.2) else None,
            "crop_offset": ["round", "floor"][int(random.integers(2))],
            "interpolation": INTERPOLATIONS[seed // len(RESIZES) % len(INTERPOLATIONS)],
            "antialias": bool(random.random() < 0.7),
            "pass_order": ["horizontal_first", "pillow13"][int(random.integers(2))],
        }
    )
    return config.model_dump(mode="json")


def test_numpy_prepares_pictures_as_the_server_does() -> None:
    for seed in range(PICTURES):
        image, config = draw(seed), choose(seed)
        expected = preprocess_images([image], PreprocessingConfig.model_validate(config))
        pixels, geometry = preprocess(image, config)
        told = (seed, image.shape, config)
        assert pixels.shape == expected.pixels.shape, told
        assert np.abs(pixels.astype(int) - expected.pixels.numpy().astype(int)).max() <= 1, told
        (placed,) = expected.geometries
        assert (geometry.source_hw, geometry.scale_hw, geometry.offset_hw) == (
            placed.source_hw, placed.scale_hw, placed.offset_hw,
        ), told  # fmt: skip


def test_a_strip_is_prepared_without_making_all_of_what_it_is_resized_to() -> None:
    image = np.random.default_rng(0).integers(0, 256, (2, 20_000, 3), np.uint8)
    document = {"resize": {"mode": "shortest_edge", "size": 96}, "crop": [96, 96]}
    config = PreprocessingConfig.model_validate(document)
    expected = preprocess_images([image], config).pixels.numpy()
    pixels, _ = preprocess(image, config.model_dump(mode="json"))
    assert np.abs(pixels.astype(int) - expected.astype(int)).max() <= 1


SCRIPT = """
import { readFileSync } from "node:fs";
import { preprocess } from "./vision.mjs";
for (const { image, config } of JSON.parse(readFileSync(0))) {
    const { pixels, shape, geometry } = preprocess({ ...image, data: Buffer.from(image.data, "base64") }, config);
    const { scale, offset } = geometry;
    console.log(JSON.stringify({ pixels: Buffer.from(pixels).toString("base64"), shape, scale, offset }));
}
"""


@pytest.mark.lab
@pytest.mark.skipif(shutil.which("node") is None, reason="node is missing")
def test_javascript_prepares_pictures_as_the_server_does(tmp_path: Path) -> None:
    import base64

    shutil.copyfile(CARRIED / "vision.mjs", tmp_path / "vision.mjs")
    (tmp_path / "run.mjs").write_text(SCRIPT)
    cases = []
    for seed in range(PICTURES):
        image = draw(seed)
        rgba = np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])
        picture = {"width": image.shape[1], "height": image.shape[0], "data": base64.b64encode(rgba.tobytes()).decode()}
        cases.append({"image": picture, "config": choose(seed)})
    done = subprocess.run(
        ["node", str(tmp_path / "run.mjs")], input=json.dumps(cases), capture_output=True, text=True, check=True
    )
    for seed, line in enumerate(done.stdout.splitlines()):
        found = json.loads(line)
        expected = preprocess_images([draw(seed)], PreprocessingConfig.model_validate(choose(seed)))
        assert found["shape"] == list(expected.pixels.shape), (seed, choose(seed))
        pixels = np.frombuffer(base64.b64decode(found["pixels"]), np.uint8).reshape(found["shape"])
        assert np.abs(pixels.astype(int) - expected.pixels.numpy().astype(int)).max() <= 1, (seed, choose(seed))
        assert found["offset"] == list(expected.geometries[0].offset_hw), (seed, choose(seed))
        assert found["scale"] == pytest.approx(list(expected.geometries[0].scale_hw))
