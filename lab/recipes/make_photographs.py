"""Photographs of 12 megapixels, as phones send them: cuts of examples/photographs, scaled up, with grain.

python lab/recipes/make_photographs.py
python scripts/build_model.py lab/recipes/resnet50_photos.yaml --backend openvino --precision fp32
"""

from pathlib import Path

from mar_tools.load_testing.images import load_test_images

FOLDER = Path(__file__).resolve().parent / "photographs"
COUNT = 16
SIZE = (4000, 3000)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for number, photograph in enumerate(load_test_images(COUNT, SIZE)):
        (FOLDER / f"{number:02}.jpg").write_bytes(photograph)


if __name__ == "__main__":
    main()
