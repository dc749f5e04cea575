"""What a picture takes while it is decoded and brought to model size: the bytes a pixel of docs/use/images.md."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import PIL.Image
import pytest
from fakes import encode_image, noise_image

WIDTH, HEIGHT = 4000, 3000
TURNED = PIL.Image.Exif()
TURNED[0x0112] = 6


def make_pictures() -> dict[str, bytes]:
    photo = PIL.Image.fromarray(noise_image(0, (HEIGHT // 8, WIDTH // 8))).resize((WIDTH, HEIGHT))
    cut_out = photo.copy()
    cut_out.putalpha(photo.getchannel(0))
    deep = np.asarray(photo.convert("L")).astype(np.uint16) * 257
    png: dict[str, Any] = {"kind": "PNG", "compress_level": 1}
    return {
        "jpeg": encode_image(photo, "JPEG"),
        "jpeg, turned": encode_image(photo, "JPEG", exif=TURNED),
        "jpeg, cmyk": encode_image(photo.convert("CMYK"), "JPEG"),
        "png, turned and transparent": encode_image(cut_out, exif=TURNED, **png),
        "png of 16 bits": encode_image(PIL.Image.fromarray(deep), **png),
        "jpeg, progressive": encode_image(photo, "JPEG", progressive=True, subsampling=0),
        "webp, transparent": encode_image(cut_out, "WEBP", method=0),
    }


MOST_BYTES = {"jpeg, progressive": 11, "webp, transparent": 17}
OTHERS = 10

# Each in a process of its own, that begins with what the parent holds and has never decoded anything.
MEASURE = """
import os, resource, sys
from pathlib import Path
import orjson, torch
import vision_serving.pictures.decoding as images
from vision_serving.pictures.formats import load_formats
from vision_serving.config import ImageLimits, PreprocessingConfig, ResizeConfig
from vision_serving.pictures.resizing import preprocess_images

config = PreprocessingConfig(resize=ResizeConfig(mode="exact", size=(224, 224)))
torch.set_num_threads(1)
load_formats(ImageLimits().formats)

def measure(data):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    preprocess_images([images.decode_image(data, ImageLimits())], config)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024

for path in map(Path, sys.argv[1:]):
    data = path.read_bytes()
    if os.fork() == 0:
        path.with_suffix(".json").write_bytes(orjson.dumps(measure(data)))
        os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="module")
def peaks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """Bytes a pixel, by picture."""
    folder = tmp_path_factory.mktemp("pictures")
    pictures = make_pictures()
    paths = {name: folder / str(number) for number, name in enumerate(pictures)}
    for name, path in paths.items():
        path.write_bytes(pictures[name])
    finished = subprocess.run([sys.executable, "-c", MEASURE, *paths.values()], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    read = {name: orjson.loads(Path(f"{path}.json").read_bytes()) for name, path in paths.items()}
    return {name: found / (WIDTH * HEIGHT) for name, found in read.items()}


def test_a_picture_takes_no_more_memory_than_the_documents_say(peaks: dict[str, float]) -> None:
    print({name: round(found, 1) for name, found in peaks.items()})
    assert {name: found for name, found in peaks.items() if found > MOST_BYTES.get(name, OTHERS)} == {}
