"""Answers as pictures over HTTP, and what predict_images.py writes."""

import csv
import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL.Image
import pyarrow.parquet as pq
import pytest
from conftest import RunHere
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from vision_serving.answers.drawing import MIN_SIDE, class_colour

from .conftest import EXAMPLES, Served, Service
from .test_requests import GARBAGE, OCTETS

PNG, JPEG, JSON = "image/png", "image/jpeg", "application/json"
SCENES = EXAMPLES / "digits_detection" / "samples"
HELDOUT = EXAMPLES / "digits_detection" / "heldout"


def ask_for(media_type: str, **headers: str) -> dict[str, str]:
    return {**OCTETS, "Accept": media_type, **headers}


def enlarged(picture: PIL.Image.Image) -> tuple[int, int]:
    """The size that a small picture is drawn at."""
    scale = max(1, MIN_SIDE / min(picture.size))
    return round(picture.width * scale), round(picture.height * scale)


def open_picture(body: bytes) -> PIL.Image.Image:
    return PIL.Image.open(io.BytesIO(body)).convert("RGB")


@pytest.mark.parametrize(("media_type", "tolerance"), [(PNG, 0), (JPEG, 70)])
def test_boxes_are_drawn_in_the_colour_of_their_class(
    served: Served, scene: bytes, media_type: str, tolerance: int
) -> None:
    best = {"X-Inference-Options": "max_detections=1"}
    response = served.post("digits_detection", scene, ask_for(media_type, **best))
    assert (response.status_code, response.headers["Content-Type"]) == (200, media_type)
    [found] = served.post("digits_detection", scene, {**OCTETS, **best}).json()["detections"]
    sent, picture = open_picture(scene), open_picture(response.content)
    assert picture.size == enlarged(sent)
    scale = picture.width / sent.width
    x1, y1, x2, y2 = (round(side * scale) for side in found["box"])
    pixels = np.asarray(picture).astype(int)
    edges = pixels[[(y1 + y2) // 2] * 2, [x1, x2 - 1]], pixels[[y1, y2 - 1], [(x1 + x2) // 2] * 2]
    assert np.abs(np.concatenate(edges) - class_colour(found["class_id"])).max() <= tolerance


@pytest.mark.parametrize("media_type", [PNG, JPEG])
def test_classes_are_drawn_below_the_picture(served: Served, seven: bytes, media_type: str) -> None:
    response = served.post("digits", seven, ask_for(media_type))
    assert (response.status_code, response.headers["Content-Type"]) == (200, media_type)
    sent, picture = open_picture(seven), open_picture(response.content)
    assert picture.width == enlarged(sent)[0]
    assert picture.height > enlarged(sent)[1]
    colours = np.abs(np.asarray(picture).astype(int) - class_colour(7)).max(axis=2)
    assert (colours <= 40).sum(axis=1).max() > 0.9 * 0.9 * picture.width  # the 7 has a score of 0.95


def test_pictures_json_and_errors_share_a_batch(served: Served, scene: bytes) -> None:
    requests = [(scene, PNG), (scene, JSON), (GARBAGE, PNG), (scene, JPEG)]
    token = {"Authorization": f"Bearer {served.token}"}

    def post(request: tuple[bytes, str]) -> tuple[int, str, int]:
        response = served.post("digits_detection", request[0], ask_for(request[1], **token))
        if response.headers["Content-Type"] == JSON:
            assert ("code" in response.json()) == (response.status_code != 200)
        else:
            open_picture(response.content)
        return response.status_code, response.headers["Content-Type"], int(response.headers["X-Batch-Size"])

    for _ in range(5):
        with ThreadPoolExecutor(len(requests)) as pool:
            answers = list(pool.map(post, requests))
        assert [answer[:2] for answer in answers] == [(200, PNG), (200, JSON), (400, JSON), (200, JPEG)]
        if all(size == len(requests) for *_, size in answers):
            return
    raise AssertionError("no burst shared one batch")


@pytest.mark.parametrize("accept", ["*/*", "text/html", "image/webp", "nonsense;q=;,"])
def test_whoever_does_not_ask_for_a_picture_gets_json(served: Served, seven: bytes, accept: str) -> None:
    response = served.post("digits", seven, ask_for(accept))
    assert (response.status_code, response.headers["Content-Type"]) == (200, JSON)
    assert len(response.json()["classes"]) == 5


def test_a_picture_of_several_images_is_refused(served: Served, seven: bytes) -> None:
    files = {name: (f"{name}.png", seven, PNG) for name in "ab"}
    response = served.request("POST", "/predictions/digits", files=files, headers={"Accept": PNG})
    assert (response.status_code, response.headers["Content-Type"]) == (406, JSON)
    assert response.json()["type"] == "NotAcceptableError"


def test_the_largest_answer_does_not_end_the_worker(served: Served) -> None:
    before = served.worker_pids("digits")
    noise = np.random.default_rng(0).integers(0, 256, (2400, 2400, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    PIL.Image.fromarray(noise).save(buffer, "PNG", compress_level=0)
    response = served.post("digits", buffer.getvalue(), ask_for(PNG))
    assert response.status_code == 200
    assert open_picture(response.content).width == 1414
    assert served.worker_pids("digits") == before


# predict_images.py


@pytest.fixture
def predict(run_here: RunHere, service: Service) -> RunHere:
    return lambda model, *arguments: run_here("predict_images.py", model, *arguments, "--config", service.server.config)


@pytest.mark.parametrize(("folder", "concurrency"), [(SCENES, 1), (HELDOUT, 8)], ids=["one", "eight"])
def test_csv_of_a_folder_is_in_order_whatever_is_asked_at_a_time(
    predict: RunHere, folder: Path, concurrency: int
) -> None:
    finished = predict("digits_detection", folder, "--format", "csv", "--concurrency", concurrency)
    assert finished.returncode == 0, finished.stderr
    rows = list(csv.DictReader(io.StringIO(finished.stdout)))
    names = list(dict.fromkeys(row["file"] for row in rows))
    assert names == [str(path) for path in sorted(folder.glob("*.jpg"))]
    assert all(float(row["x1"]) <= float(row["x2"]) for row in rows if row["score"])


def test_an_image_that_failed_is_a_row_with_the_reason(predict: RunHere, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(GARBAGE)
    output = tmp_path / "found.csv"
    samples = EXAMPLES / "digits_classification" / "samples" / "seven.png"
    finished = predict("digits", tmp_path, samples, "--format", "csv", "--output", output, "--option", "top_k=1")
    assert (finished.returncode, finished.stdout) == (1, "")
    assert "1 of 2 images failed" in finished.stderr
    failed, good = csv.DictReader(output.open())
    assert failed["error"].startswith("400 ImageDecodeError: not an image")
    assert (good["label"], good["error"]) == ("7", "")


def test_coco_results_are_measured_by_pycocotools(predict: RunHere, tmp_path: Path) -> None:
    annotations, output = HELDOUT / "annotations.json", tmp_path / "found.json"
    finished = predict(
        "digits_detection", HELDOUT, "--format", "coco", "--coco-images", annotations,
        "--output", output, "--option", "score_threshold=0.05",
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    truth = COCO(str(annotations))
    evaluation = COCOeval(truth, truth.loadRes(str(output)), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] > 0.7  # README: mAP 0.752


def test_coco_results_without_annotations_come_with_their_images(predict: RunHere, tmp_path: Path) -> None:
    output = tmp_path / "found.json"
    finished = predict("digits_detection", SCENES, "--format", "coco", "--output", output)
    assert finished.returncode == 0, finished.stderr
    found = COCO(str(tmp_path / "found.images.json")).loadRes(str(output))
    assert [image["file_name"] for image in found.dataset["images"]] == [str(p) for p in sorted(SCENES.glob("*.jpg"))]
    assert len(found.anns) == len(json.loads(output.read_text())) > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "coco"], "needs --coco-images, or --output"),
        (["--coco-images", "a.json"], "belongs to --format coco"),
        (["--format", "xml"], "invalid choice: 'xml'"),
    ],
)
def test_what_does_not_go_together_is_refused(run_here: RunHere, arguments: list[str], message: str) -> None:
    finished = run_here("predict_images.py", "digits_detection", SCENES, *arguments)
    assert finished.returncode != 0
    assert message in finished.stderr


def test_csv_needs_corners_whoever_asked_for_another_form(predict: RunHere) -> None:
    finished = predict("digits_detection", SCENES, "--format", "csv", "--option", "box_format=xywh")
    assert finished.returncode == 1
    assert "need boxes as xyxy, got xywh; give --option box_format=xyxy" in finished.stderr


def test_rows_over_http_and_in_process_are_the_same(
    predict: RunHere, run_here: RunHere, service: Service, tmp_path: Path
) -> None:
    archive, rows = service.model_store / "digits_detection.mar", {}
    (tmp_path / "broken.jpg").write_bytes(GARBAGE)
    form = ("--format", "parquet", "--output")
    assert predict("digits_detection", SCENES, tmp_path / "broken.jpg", *form, tmp_path / "served").returncode == 1
    local = run_here(
        "predict_images.py", "--archive", archive, SCENES, tmp_path / "broken.jpg", *form, tmp_path / "local"
    )
    assert local.returncode == 1, local.stderr
    for name in ("served", "local"):
        rows[name] = {row["path"]: row for row in pq.read_table(tmp_path / name).to_pylist()}
    assert rows["served"].keys() == rows["local"].keys()
    for path, expected in rows["local"].items():
        found = rows["served"][path]
        for column in ("status", "error", "image", "model", "version"):
            assert found[column] == expected[column]
        boxes = [[[each["label"], *each["box"]] for each in row["detections"] or []] for row in (found, expected)]
        assert len(boxes[0]) == len(boxes[1])
        for one, other in zip(*boxes, strict=True):
            assert one[0] == other[0]
            assert one[1:] == pytest.approx(other[1:], abs=0.5)  # batches of other sizes move a box a little
    assert pq.read_schema(next((tmp_path / "served").glob("part-*"))) == pq.read_schema(
        next((tmp_path / "local").glob("part-*"))
    )
