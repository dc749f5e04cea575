"""What a user does on the page of this machine: models, options, explanations, code, comparisons."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from e2e.conftest import ROOT, Service
from mar_tools.playground.page_server import PageServer

from .conftest import CLASSIFIER, DETECTOR, SCENE, SEVEN, Shown

NOTES = ROOT / "examples" / "notes" / "notes.jpg"
PHONE = {"width": 360, "height": 740}


@pytest.mark.parametrize("model", [DETECTOR, CLASSIFIER])
def test_every_option_of_the_model_card_has_a_control(model: str, shown: Shown, service: Service) -> None:
    shown.choose(model)
    names = shown.page.locator(".options [name]").evaluate_all("all => all.map(one => one.name)")
    assert names == list(service.server.client.describe_card(model)["options"])


def test_an_option_changes_the_answer_and_the_code(shown: Shown) -> None:
    shown.choose(DETECTOR)
    shown.give(SCENE.read_bytes(), "scene.jpg")
    before = len(shown.rows())
    shown.page.fill("[name=score_threshold]", "0.85")
    shown.page.locator(".code", has_text="score_threshold=0.85").wait_for(state="attached")
    shown.settle()
    assert 0 < len(shown.rows()) < before


@pytest.mark.parametrize("form", ["xywh", "xyxyn", "xywhn"])
def test_boxes_stay_in_their_place_whatever_their_form(form: str, shown: Shown) -> None:
    shown.choose(DETECTOR)
    shown.give(SCENE.read_bytes(), "scene.jpg")
    read_places = "all => all.map(one => Object.values(one.getBBox()).map(Math.round))"
    before = shown.page.locator(".overlay .edge").evaluate_all(read_places)
    shown.page.select_option("[name=box_format]", form)
    shown.page.locator(".answer", has_text=f'"box_format": "{form}"').wait_for(state="attached")
    shown.settle()
    assert shown.page.locator(".overlay .edge").evaluate_all(read_places) == before


def test_labels_do_not_overlap(shown: Shown) -> None:
    """Of ten digits on notes, and of a low threshold, which gives more boxes than labels find room."""
    shown.choose(DETECTOR)
    shown.page.fill("[name=score_threshold]", "0.02")
    shown.give(NOTES.read_bytes(), "notes.jpg")
    read_boxes = "all => all.map(one => one.getBoundingClientRect().toJSON())"
    boxes: list[dict[str, Any]] = shown.page.locator(".labels span:not(.out)").evaluate_all(read_boxes)
    assert len(boxes) > 10
    for i, one in enumerate(boxes):
        assert not any(overlap(one, other) for other in boxes[:i])


def overlap(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return bool(
        one["left"] < other["right"]
        and other["left"] < one["right"]
        and one["top"] < other["bottom"]
        and other["top"] < one["bottom"]
    )


def test_a_box_and_its_line_are_shown_together_by_mouse_and_keyboard(shown: Shown) -> None:
    shown.choose(DETECTOR)
    shown.give(SCENE.read_bytes(), "scene.jpg")
    shown.page.locator(".results button").first.focus()
    assert shown.page.locator(".overlay .item.on").count() == 1
    assert shown.page.locator(".labels .on").inner_text().startswith(shown.rows()[0][0])
    shown.page.keyboard.press("Tab")
    assert shown.page.locator(".results button").nth(1).get_attribute("class") == "row on"
    shown.page.locator(".overlay .item .inside").first.hover(force=True)  # drawn first: the last of the list
    assert shown.page.locator(".results button").last.get_attribute("class") == "row on"


def test_an_explanation_is_a_map_of_cells(shown: Shown) -> None:
    shown.choose(CLASSIFIER)
    shown.give(SEVEN.read_bytes(), "seven.png")
    shown.page.click(".see-explanation")
    shown.page.locator(".overlay rect").first.wait_for(state="attached")
    assert shown.page.locator(".overlay rect").count() == 8 * 8
    assert "What speaks for 7" in shown.page.locator(".status").inner_text()
    assert shown.page.locator(".options [name=cells]").input_value() == "8"


def test_two_models_answer_the_same_picture_side_by_side(shown: Shown) -> None:
    shown.give(SCENE.read_bytes(), "scene.jpg")
    shown.page.check("#compare")
    shown.choose(CLASSIFIER, panel=0)
    shown.choose(DETECTOR, panel=1)
    shown.page.locator(".panel:nth-child(1) .bar-of-score").first.wait_for()
    shown.page.locator(".panel:nth-child(2) .item").first.wait_for()
    assert shown.page.locator(".panel").count() == 2
    shown.page.uncheck("#compare")
    assert shown.page.locator(".panel").count() == 1


def test_two_versions_of_a_model_are_asked_each_by_its_own_path(shown: Shown) -> None:
    """The server of these tests has one version of each: the page is told of a second."""
    listed = {"models": [{"name": CLASSIFIER, "default": "1.0", "versions": ["0.9", "1.0"]}]}
    shown.page.route("**/playground/models", lambda route: route.fulfill(json=listed))
    shown.page.reload()
    shown.page.locator(".options-box [name=top_k]").wait_for()  # of 1.0, as 0.9 gives no card
    shown.page.check("#compare")
    shown.give(SEVEN.read_bytes(), "seven.png")
    first, second = shown.page.locator(".panel").all()
    assert [first.get_attribute("aria-label"), second.get_attribute("aria-label")] == [
        "Model digits 1.0",
        "Model digits 0.9",
    ]
    first.locator(".row").first.wait_for()
    second.locator(".error", has_text="404 ").wait_for()
    assert "/predictions/digits\n" in f"{first.locator('.code').text_content()}\n"
    assert "/predictions/digits/0.9\n" in f"{second.locator('.code').text_content()}\n"


def test_the_picture_is_zoomed_and_its_labels_keep_their_size(shown: Shown) -> None:
    shown.choose(DETECTOR)
    shown.give(SCENE.read_bytes(), "scene.jpg")
    canvas, box, label = measure_widths(shown)
    shown.page.click(".in")
    shown.page.click(".in")
    larger = measure_widths(shown)
    assert larger == [
        pytest.approx(2.25 * canvas, rel=0.05),
        pytest.approx(2.25 * box, rel=0.05),
        pytest.approx(label, abs=1),
    ]
    shown.page.select_option("[name=nms]", "class_agnostic")  # the same picture, asked again
    shown.page.locator(".code", has_text="class_agnostic").wait_for(state="attached")
    shown.settle()
    assert measure_widths(shown)[0] == pytest.approx(larger[0], abs=20)
    shown.page.click(".fit")
    assert measure_widths(shown)[0] == pytest.approx(canvas, abs=20)


def measure_widths(shown: Shown) -> list[float]:
    """Return how wide the picture, a box and a label are, in pixels of the page."""
    width = "one => one.getBoundingClientRect().width"
    return [float(shown.page.locator(place).first.evaluate(width)) for place in (".canvas", ".edge", ".labels span")]


def test_an_option_that_was_changed_is_reset(shown: Shown) -> None:
    shown.choose(CLASSIFIER)
    shown.give(SEVEN.read_bytes(), "seven.png")
    shown.page.fill("[name=top_k]", "2")
    shown.page.click(".reset")
    shown.page.locator(".row >> nth=4").wait_for()
    assert shown.page.locator(".reset:visible").count() == 0
    assert "X-Inference-Options" not in str(shown.page.locator(".code").text_content())


def test_a_server_that_ends_meanwhile_is_told_and_asked_again(shown: Shown) -> None:
    shown.choose(CLASSIFIER)
    shown.page.route("**/predictions/**", lambda route: route.abort())
    shown.give(SEVEN.read_bytes(), "seven.png")
    assert shown.error().startswith("The server does not answer.")
    shown.page.unroute("**/predictions/**")
    shown.page.click(".retry")
    shown.page.locator(".row").first.wait_for()
    assert shown.page.locator(".panel .error:visible").count() == 0


def test_models_that_cannot_be_listed_are_listed_later(page_server: PageServer, shown: Shown) -> None:
    shown.page.route(
        "**/playground/models", lambda route: route.fulfill(status=503, json={"code": 503, "message": "start it"})
    )
    shown.page.reload()
    shown.page.locator("#problem", has_text="start it").wait_for()
    shown.page.unroute("**/playground/models")
    shown.page.click("#again")
    shown.page.locator(".options label").first.wait_for()
    assert shown.page.locator("#problem:visible").count() == 0


def test_labels_are_text_and_never_html(shown: Shown) -> None:
    hostile = "<img src=x onerror=alert(1)>"
    found = {"class_id": 1, "label": hostile, "score": 0.9, "box": [10, 10, 60, 60]}
    answer = {"detections": [found], "image": {"width": 389, "height": 285}}
    shown.page.route("**/predictions/**", lambda route: route.fulfill(json=answer))
    shown.choose(DETECTOR)
    shown.give(SCENE.read_bytes(), hostile)
    assert shown.rows() == [(hostile, "0.900")]
    assert shown.page.locator(".panel img").count() == 1
    assert shown.complaints == []


def test_the_report_of_the_model_opens_from_its_card(shown: Shown) -> None:
    shown.choose(CLASSIFIER)
    shown.page.locator("summary", has_text="Model card").click()
    with shown.page.context.expect_page() as opened:
        shown.page.click(".card a")
    assert opened.value.title() == "digits 1.0: report"
    assert opened.value.locator("img").first.evaluate("image => image.naturalWidth") > 0  # its policy lets it show


def test_stages_and_the_card_are_shown(shown: Shown) -> None:
    shown.choose(CLASSIFIER)
    shown.give(SEVEN.read_bytes(), "seven.png")
    assert "inference" in shown.page.locator(".stage-list").inner_text()
    card = shown.page.locator(".card").text_content() or ""
    assert "classification" in card
    assert "openvino" in card


def test_the_page_asks_no_other_host_and_keeps_nothing(page_server: PageServer, shown: Shown) -> None:
    asked: list[str] = []
    shown.page.on("request", lambda request: asked.append(request.url))
    shown.page.reload()
    shown.page.locator(".options label").first.wait_for()
    shown.give(SCENE.read_bytes(), "scene.jpg")
    hosts = {urlsplit(url).netloc for url in asked if not url.startswith("blob:")}
    assert hosts == {urlsplit(page_server.url).netloc}
    assert shown.page.context.storage_state() == {"cookies": [], "origins": []}
    assert shown.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_a_phone(scheme: str, page_server: PageServer, open_page: Callable[..., Shown]) -> None:
    shown = open_page(page_server.url, viewport=PHONE, color_scheme=scheme)
    shown.choose(DETECTOR)
    shown.give(SCENE.read_bytes(), "scene.jpg")
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert shown.page.evaluate(wide) == 0
    light = shown.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (light == "rgb(243, 245, 248)") == (scheme == "light")


def test_the_page_of_the_routes_lists_each_of_them(page_server: PageServer, open_page: Callable[..., Shown]) -> None:
    described = yaml.safe_load((ROOT / "docs" / "use" / "openapi.yaml").read_text())
    shown = open_page(f"{page_server.url}docs")
    shown.page.locator(".route").first.wait_for()
    found = shown.page.locator(".route > summary").all_inner_texts()
    expected = [f"{method.upper()} {path}" for path, item in described["paths"].items() for method in item]
    assert len(found) == len(expected)
    assert all(any(text.startswith(route) for text in found) for route in expected)
    shown.page.click("#predict > summary")
    assert shown.page.locator("#predict", has_text="X-Inference-Options").count() == 1
    assert shown.page.locator("#predict details summary", has_text="422").count() == 1
    assert shown.complaints == []
