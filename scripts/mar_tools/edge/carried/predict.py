"""Predict pictures with the model of this folder, and print its answers as JSON, a line each.

    python predict.py golden.png photo.jpg

Needs NumPy, Pillow and the runtime that README.md names.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps
from postprocess import postprocess
from preprocess import preprocess
from runtime import load

FOLDER = Path(__file__).resolve().parent


class Predictor:
    """The model of a folder, loaded once."""

    def __init__(self, folder: Path = FOLDER) -> None:
        names = ("model", "preprocessing", "options", "labels")
        documents = [json.loads((folder / f"{name}.json").read_text("utf-8")) for name in names]
        self.model, self.preprocessing, self.options, self.labels = documents
        self.run = load(folder / self.model["artifact"], self.model["outputs"])

    def predict(self, picture: Path) -> dict[str, Any]:
        """Return the answer to a picture's file. Transparent parts show the colour that is stored beneath them."""
        with PIL.Image.open(picture) as opened:
            image = np.asarray(PIL.ImageOps.exif_transpose(opened).convert("RGB"))
        pixels, geometry = preprocess(image, self.preprocessing)
        answer: dict[str, Any] = postprocess(self.run(pixels), geometry, self.labels, self.options)
        return answer


def main(names: list[str]) -> None:
    """Print an answer for each picture, up to one that cannot be read."""
    if not names:
        sys.exit("error: which picture? expected: python predict.py golden.png")
    predictor = Predictor()
    for name in names:
        try:
            print(json.dumps(predictor.predict(Path(name))))
        except OSError as error:
            sys.exit(f"error: {name}: {error.strerror or 'not a whole picture of a kind that Pillow reads'}")


if __name__ == "__main__":
    main(sys.argv[1:])
