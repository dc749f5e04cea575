"""What a result shows of itself in a notebook: the picture, a table, nothing that runs, and never an error."""

import base64
import copy
import io
import json
import pickle
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes
from xml.etree import ElementTree

import numpy as np
import PIL.Image
import pytest
from client_fakes import Recorder, client_of
from http_fakes import Answer
from pycocotools.mask import encode as encode_mask

from vision_client import Classification, Detections, Explanation, Prediction, PredictionError, Results
from vision_client.pictures import PictureMemory, SentPicture, shrink
from vision_client.results import read_answer

EVIL = '</td><script>alert(1)</script><img src=x onerror="alert(1)">'
SVG = "{http://www.w3.org/2000/svg}"
SIZE = (60, 40)
ALLOWED = {"div", "span", "small", "img", "table", "thead", "tbody", "tr", "th", "td", "em", "code", "pre"}
CLASSES = {"classes": [{"class_id": 3, "label": "cat", "score": 0.75}, {"class_id": 1, "label": "dog", "score": 0.25}]}
BOX = {"class_id": 1, "label": "person", "score": 0.9, "box": [6, 4, 30, 20]}
IMAGE = {"image": {"width": SIZE[0], "height": SIZE[1]}}
HEAT_MAP = {"height": 2, "width": 2, "box": [0, 0, 60, 40], "values": [[0.5, -0.25], [0, 1]]}
EXPLAINED = {"class_id": 7, "label": "7", "score": 0.9, "method": "occlusion", "heat_map": HEAT_MAP, **IMAGE}


class Tags(HTMLParser):
    """Collects what a browser would read: names of tags and of attributes, and addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.addresses += [value or "" for name, value in attrs if name == "src"]


def read_tags(html: str) -> Tags:
    tags = Tags()
    tags.feed(html)
    return tags


def encode(mode: str = "RGB", size: tuple[int, int] = SIZE, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.new(mode, size, **options.pop("new", {})).save(buffer, format, **options)
    return buffer.getvalue()


def answer(document: Any, content: bytes | None = None) -> Any:
    return read_answer(json.dumps(document).encode(), SentPicture(content=encode() if content is None else content))


def drawn(result: Prediction) -> list[ElementTree.Element]:
    """Return the shapes of the picture that a notebook shows, once more from its HTML."""
    (address,) = read_tags(result._repr_html_()).addresses
    kind, data = address.split(",", 1)
    assert kind == "data:image/svg+xml"
    return list(ElementTree.fromstring(unquote_to_bytes(data)))


def count(result: Prediction) -> dict[str, int]:
    names = [shape.tag.removeprefix(SVG) for shape in drawn(result)]
    return {name: names.count(name) for name in names}


def test_classes_are_a_table_with_a_bar_each_beside_the_picture() -> None:
    html = answer(CLASSES)._repr_html_()
    assert re.findall(r"</span> (\w+)</td><td>([\d.]+)</td>", html) == [("cat", "0.750"), ("dog", "0.250")]
    assert re.findall(r"width:(\d+)px;height:.7em", html) == ["75", "25"]
    assert count(answer(CLASSES)) == {"image": 1}


def test_boxes_are_drawn_where_they_are_with_their_labels() -> None:
    result = answer({"detections": [BOX], **IMAGE})
    shapes = drawn(result)
    width, height = 320, 213  # a small picture is enlarged
    x1, y1, x2, y2 = 0.1 * width, 0.1 * height, 0.5 * width, 0.5 * height
    places = ((x1, y1), (x2, y1), (x2, y2), (x1, y2))
    assert shapes[1].get("d") == "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places) + "Z"
    assert [shape.text for shape in shapes if shape.tag == f"{SVG}text"] == ["person 0.90"]


def test_a_long_label_is_cut_and_its_score_is_not() -> None:
    shapes = drawn(answer({"detections": [{**BOX, "label": "a" * 1000}], **IMAGE}))
    width = 320
    assert str(shapes[-1].text).endswith("a… 0.90")
    assert width / 3 < float(str(shapes[-2].get("width"))) <= width


@pytest.mark.parametrize("form", ["xywh", "xyxyn", "xywhn"])
def test_boxes_of_every_form_are_drawn_in_one_place(form: str) -> None:
    width, height = SIZE
    box = [6, 4, 24, 16] if form.startswith("xywh") else [6, 4, 30, 20]
    shares = [value / side for value, side in zip(box, (width, height, width, height))]
    found = {**BOX, "box": shares if form.endswith("n") else box}
    result = answer({"detections": [found], **IMAGE, "box_format": form})
    assert drawn(result)[1].get("d") == drawn(answer({"detections": [BOX], **IMAGE}))[1].get("d")


@pytest.mark.parametrize(
    ("fields", "shapes"),
    [
        ({"corners": [10, 5, 30, 10, 25, 20, 5, 15]}, {"path": 2}),
        ({"polygons": [[1, 1, 9, 1, 9, 9], [20, 20, 30, 20, 30, 30]]}, {"path": 3}),
        ({"mask": {"size": [40, 60], "counts": "P3d0h1"}}, {"path": 3}),
        ({"mask": None, "keypoints": None}, {"path": 2}),
        ({"keypoints": [[10, 10, 0.9], [12, 10, 0.2], [14, 10, 0.8]]}, {"path": 2, "circle": 2}),
        ({"keypoints": [[x, 10, 0.9] for x in range(17)]}, {"path": 2 + 16, "circle": 17}),
    ],
    ids=["turned", "polygons", "mask", "not described", "points", "person"],
)
def test_what_a_detection_has_beside_its_box_is_drawn(fields: dict[str, Any], shapes: dict[str, int]) -> None:
    assert count(answer({"detections": [{**BOX, **fields}], **IMAGE})) == {"image": 1, **shapes, "rect": 1, "text": 1}


def test_a_mask_is_drawn_as_it_is() -> None:
    mask = np.random.default_rng(0).random((SIZE[1], SIZE[0])) < 0.5
    counts = encode_mask(np.asfortranarray(mask, np.uint8))["counts"].decode()
    result = answer({"detections": [{**BOX, "mask": {"size": [SIZE[1], SIZE[0]], "counts": counts}}], **IMAGE})
    (shape,) = [shape for shape in drawn(result) if shape.get("transform")]
    shown = np.zeros_like(mask)
    for column, row, length in re.findall(r"M(\d+) (\d+)h1v(\d+)h-1z", str(shape.get("d"))):
        shown[int(row) : int(row) + int(length), int(column)] = True
    assert (shown == mask).all()


def test_a_heat_map_has_a_cell_for_each_value_over_gray() -> None:
    result = answer(EXPLAINED)
    cells = [(shape.get("fill"), shape.get("fill-opacity")) for shape in drawn(result)[1:]]
    red, blue = "#d7191c", "#2166ac"
    assert cells == [(red, "0.350"), (blue, "0.175"), (blue, "0.000"), (red, "0.700")]
    assert "grayscale" in str(drawn(result)[0].get("style"))


def test_labels_do_not_cover_each_other() -> None:
    generator = np.random.default_rng(0)
    starts = generator.integers(0, 400, (40, 2))
    boxes = [{**BOX, "box": [int(x), int(y), int(x) + 60, int(y) + 40]} for x, y in starts]
    document = {"detections": boxes, "image": {"width": 500, "height": 450}}
    shapes = drawn(answer(document, encode(size=(500, 450))))
    frames = [tuple(float(shape.get(n, 0)) for n in ("x", "y", "width", "height")) for shape in shapes]
    labels = [frame for shape, frame in zip(shapes, frames) if shape.tag == f"{SVG}rect"]
    assert len(labels) > 20
    for number, (x, y, width, height) in enumerate(labels):
        assert 0 <= x <= 500 - width
        assert 0 <= y <= 450 - height
        assert all(x + width <= a or a + c <= x or y + height <= b or b + d <= y for a, b, c, d in labels[:number])


@pytest.mark.parametrize(
    "document",
    [
        {"classes": [{"class_id": 1, "label": EVIL, "score": 0.5}]},
        {"detections": [{**BOX, "label": EVIL}], **IMAGE},
        {**EXPLAINED, "label": EVIL, "method": EVIL},
        {"masks": EVIL, EVIL: [EVIL]},
        {"detections": [{**BOX, "label": "a\x00\x1b\ud800\u202e\ufffe]]>&"}], **IMAGE},
        {"detections": [{**BOX, "mask": {"size": [EVIL, EVIL], "counts": EVIL}}], **IMAGE},
        {"detections": [{**BOX, "polygons": [[EVIL, EVIL]]}], **IMAGE, "box_format": EVIL},
    ],
    ids=["class", "box", "explanation", "unknown", "control characters", "mask", "polygons"],
)
def test_what_a_server_says_is_never_read_as_html(document: Any) -> None:
    result = answer(document)
    failed = PredictionError(400, EVIL, EVIL)
    for html in (result._repr_html_(), Results([result, failed])._repr_html_()):
        html.encode()
        tags = read_tags(html)
        assert tags.names <= ALLOWED
        assert tags.attributes <= {"style", "src", "alt"}
        for address in tags.addresses:
            shapes = ElementTree.fromstring(unquote_to_bytes(address.split(",", 1)[1])).iter()
            assert {shape.tag.removeprefix(SVG) for shape in shapes} <= {"svg", "image", "path", "rect", "text"}


@pytest.mark.parametrize(
    "document",
    [
        {"classes": []},
        {"classes": [{"class_id": -1, "label": "", "score": float("nan")}]},
        {"detections": [], **IMAGE},
        {"detections": [{**BOX, "box": [float("nan"), -1e300, 1e308, float("inf")]}], **IMAGE},
        {"detections": [{**BOX, "keypoints": [1, 2]}], **IMAGE},
        {"detections": [{**BOX, "mask": {"size": [40, 60], "counts": "oooooooo7"}}], **IMAGE},
        {"embedding": []},
        {**EXPLAINED, "heat_map": {"height": 0, "width": 0, "box": [0, 0, 0, 0], "values": []}},
        {},
    ],
    ids=[
        "no class",
        "no number",
        "nothing",
        "endless box",
        "odd points",
        "endless mask",
        "no vector",
        "no map",
        "empty",
    ],
)
def test_an_odd_answer_shows_itself_without_an_error(document: Any) -> None:
    assert answer(document)._repr_html_().startswith("<div")


@pytest.mark.parametrize(
    ("picture", "reason"),
    [
        (SentPicture(path="no/such/file.png"), "such/file.png cannot be read any more"),
        (SentPicture(), "is no longer kept"),
        (SentPicture(content=b"nothing"), "Pillow cannot read the picture"),
        (SentPicture(content=encode(size=(50, 40))), "has 50 x 40 pixels, and that of the result 60 x 40"),
    ],
    ids=["deleted", "forgotten", "no picture", "another"],
)
def test_a_picture_that_is_gone_leaves_the_table_and_the_reason(picture: SentPicture, reason: str) -> None:
    html = read_answer(json.dumps({"detections": [BOX], **IMAGE}).encode(), picture)._repr_html_()
    assert reason in html
    assert "person" in html
    assert "<img" not in html


def test_without_pillow_there_is_a_table_and_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    html = read_answer(json.dumps(CLASSES).encode(), SentPicture(content=b"any"))._repr_html_()
    assert "pip install pillow" in html
    assert "cat" in html


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_shown_upright(orientation: int) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    upright = PIL.Image.new("RGB", SIZE)
    upright.paste((255, 255, 255), (0, 0, 20, 20))  # the corner at the left top
    turns = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # what makes the file, which the orientation undoes
    turn = turns.get(orientation)
    stored = upright if turn is None else upright.transpose(PIL.Image.Transpose(turn))
    buffer = io.BytesIO()
    stored.save(buffer, "PNG", exif=exif)
    small = shrink(buffer.getvalue(), 100)
    shown = PIL.Image.open(io.BytesIO(base64.b64decode(small.url.split(",")[1])))
    assert (small.width, small.height) == shown.size == SIZE
    assert shown.getpixel((5, 5)) == (255, 255, 255)
    assert shown.getpixel((50, 30)) == (0, 0, 0)


@pytest.mark.parametrize(
    "content",
    [
        encode("I;16", new={"color": 40_000}),
        encode("RGBA"),
        encode("P"),
        encode("1"),
        encode("L"),
        encode("CMYK", format="TIFF"),
        encode("F", format="TIFF"),
        encode(size=(5000, 1), format="JPEG"),
        encode(size=(1, 1)),
    ],
    ids=["16 bits", "transparent", "palette", "bits", "gray", "CMYK", "floats", "wide", "one pixel"],
)
def test_every_kind_of_picture_is_shown(content: bytes) -> None:
    assert count(answer(CLASSES, content)) == {"image": 1}


def test_a_large_photograph_takes_little_of_a_notebook() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (1200, 1600, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    PIL.Image.fromarray(noise).save(buffer, "PNG")
    assert len(answer(CLASSES, buffer.getvalue())._repr_html_()) < 1_000_000


def test_results_show_the_first_of_them_and_tell_how_many_there_are() -> None:
    results = Results([answer(CLASSES), PredictionError(400, "ImageDecodeError", "not an image")] * 20)
    html = results._repr_html_()
    assert html.startswith("<div>40 images, 20 failed, the first 24 are shown</div>")
    assert html.count("<img") == 12
    assert html.count("400 ImageDecodeError: not an image") == 12


def test_results_are_a_list() -> None:
    results = Results([answer(CLASSES)])
    assert results == [answer(CLASSES)]
    assert isinstance(results[:1], Results)
    assert isinstance(results[0], Classification)


class TestPictures:
    """Which picture a result knows, and for how long."""

    @pytest.mark.parametrize("kind", ["path", "bytes", "array", "picture", "file"])
    def test_a_result_shows_the_picture_that_was_sent(self, kind: str, tmp_path: Path) -> None:
        path = tmp_path / "cats" / "one.png"
        path.parent.mkdir()
        path.write_bytes(encode())
        image: Any = {
            "path": path,
            "bytes": path.read_bytes(),
            "array": np.zeros((SIZE[1], SIZE[0], 3), np.uint8),
            "picture": PIL.Image.open(path),
            "file": path.open("rb"),
        }[kind]
        with client_of(Recorder()) as client:
            result = client.predict("digits", image)
            many = client.predict("digits", [image] if kind != "file" else [path.open("rb")])
        assert count(result) == {"image": 1}
        assert "<img" in many._repr_html_()
        assert ("cats/one.png" in many._repr_html_()) == (kind == "path")

    def test_it_is_no_part_of_the_value_and_does_not_travel(self) -> None:
        result = answer(CLASSES)
        other = read_answer(json.dumps(CLASSES).encode())
        assert result == other
        assert hash(result) == hash(other)
        assert repr(result) == repr(other)
        assert len(pickle.dumps(answer(CLASSES, bytes(100_000)))) < 2000
        assert copy.deepcopy(result) == result

    def test_bytes_are_forgotten_beyond_the_bound_the_oldest_first(self) -> None:
        memory = PictureMemory(most_bytes=250)
        kept = [memory.keep(None, bytes(100)) for _ in range(4)]
        assert [picture.content is not None for picture in kept] == [False, False, True, True]
        assert memory.keep(None, bytes(300)).content is None

    def test_bytes_live_no_longer_than_their_result(self) -> None:
        memory = PictureMemory(most_bytes=250)
        first = memory.keep(None, bytes(100))
        for _ in range(10):
            memory.keep(None, bytes(100))  # dropped at once
        assert first.content is not None

    def test_another_picture_can_be_given(self) -> None:
        result = read_answer(json.dumps({"detections": [BOX], **IMAGE}).encode())
        with pytest.raises(ValueError, match="with_picture"):
            result.to_svg()
        shown = result.with_picture(np.zeros((SIZE[1], SIZE[0], 3), np.uint8))
        assert shown == result
        assert isinstance(shown, Detections)
        assert shown.to_svg().startswith("<svg ")


def test_an_explanation_is_asked_for_by_its_own_path() -> None:
    recorder = Recorder(lambda request: Answer(200, json.dumps(EXPLAINED).encode()))
    with client_of(recorder) as client:
        explained = client.explain("digits", encode(), model_version="1.0", method="saliency")
    assert isinstance(explained, Explanation)
    assert explained.heat_map.values == ((0.5, -0.25), (0.0, 1.0))
    assert recorder.requests[0].path == "/explanations/digits/1.0"
    assert count(explained) == {"image": 1, "rect": 4}


def test_an_answer_that_explains_nothing_is_an_error() -> None:
    with client_of(Recorder()) as client, pytest.raises(PredictionError, match="expected an explanation"):
        client.explain("digits", encode())
