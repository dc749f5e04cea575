"""Cut examples/photographs/ from the colour photographs that the scikit-image and scikit-learn wheels carry.

From the repository's root:

    python examples/make_photographs.py
"""

import argparse
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

FOLDER = Path(__file__).resolve().parent / "photographs"
QUALITY = 88

# Photographs only, each under a stated free licence (photographs/README.md).
SCENES = (
    ("skimage", "data/astronaut.png"),
    ("sklearn", "datasets/images/china.jpg"),
    ("skimage", "data/chelsea.png"),
    ("skimage", "data/coffee.png"),
    ("sklearn", "datasets/images/flower.jpg"),
    ("skimage", "data/rocket.jpg"),
    ("skimage", "data/hubble_deep_field.jpg"),
)

# (left, top, right, bottom) as shares of the scene, whether mirrored, and the longest side in pixels.
VIEWS = (
    ((0.0, 0.0, 1.0, 1.0), False, 400),
    ((0.1, 0.0, 0.6, 1.0), False, 352),
    ((0.3, 0.2, 0.8, 0.85), True, 320),
    ((0.0, 0.25, 1.0, 0.75), False, 448),
    ((0.2, 0.1, 0.95, 0.9), True, 384),
    ((0.45, 0.3, 0.9, 1.0), False, 320),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder to write (default: examples/photographs)")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for number, (name, picture) in enumerate(draw_photographs()):
        picture.save(arguments.output / f"{number:02d}_{name}.jpg", quality=QUALITY, optimize=True)


def draw_photographs() -> Iterator[tuple[str, Image.Image]]:
    """Scene by scene in turn, each turn with another view of every scene, so that the first few already differ."""
    scenes = [(Path(path).stem, open_scene(package, path)) for package, path in SCENES]
    for turn in range(len(VIEWS)):
        for index, (name, scene) in enumerate(scenes):
            yield name, cut_view(scene, *VIEWS[(turn + index // 2) % len(VIEWS)])


def open_scene(package: str, path: str) -> Image.Image:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit(f"{package} is not installed: pip install -r requirements/dev.txt")
    return Image.open(Path(spec.origin).parent / path).convert("RGB")


def cut_view(
    scene: Image.Image, shares: tuple[float, float, float, float], mirrored: bool, longest_side: int
) -> Image.Image:
    """A part of the scene, never enlarged."""
    width, height = scene.size
    left, top, right, bottom = shares
    part = scene.crop((round(left * width), round(top * height), round(right * width), round(bottom * height)))
    part.thumbnail((longest_side, longest_side), Image.Resampling.LANCZOS, reducing_gap=None)
    return part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else part


if __name__ == "__main__":
    main()
