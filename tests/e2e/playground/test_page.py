"""What a user does on the page of this machine: models, options, explanations, code, comparisons."""

import json
import subprocess
import sys
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
    assert shown.page.locator(".results button").nth(1).get_attribute("class") == "on"
    shown.page.locator(".overlay .item .inside").first.hover(force=True)  # drawn first: the last of the list
    assert shown.page.locator(".results button").last.get_attribute("class") == "on"


def test_an_explanation_is_a_map_of_cells(shown: Shown) -> None:
    shown.choose(CLASSIFIER)
    shown.give(SEVEN.read_bytes(), "seven.png")
    shown.page.click(".see-explanation")
    shown.page.locator(".overlay rect").first.wait_for(state="attached")
    assert shown.page.locator(".overlay rect").count() == 8 * 8
    assert "what speaks for 7" in shown.page.locator(".status").inner_text()
    assert shown.page.locator(".options [name=cells]").input_value() == "8"


def test_two_models_answer_the_same_picture_side_by_side(shown: Shown) -> None:
    shown.give(SCENE.read_bytes(), "scene.jpg")
    shown.page.check("#compare")
    shown.choose(CLASSIFIER, panel=0)
    shown.choose(DETECTOR, panel=1)
    shown.page.locator(".panel:nth-child(1) .score-bar").first.wait_for()
    shown.page.locator(".panel:nth-child(2) .item").first.wait_for()
    assert shown.page.locator(".panel").count() == 2
    shown.page.uncheck("#compare")
    assert shown.page.locator(".panel").count() == 1


def test_stages_and_the_card_are_shown(shown: Shown) -> None:
    shown.choose(CLASSIFIER)
    shown.give(SEVEN.read_bytes(), "seven.png")
    assert "inference" in shown.page.locator(".stage-list").inner_text()
    card = shown.page.locator(".card").text_content() or ""
    assert "classification" in card
    assert "openvino" in card


@pytest.mark.parametrize("language", ["Python", "vision_client"])
def test_the_code_runs_as_it_is_shown(language: str, shown: Shown, service: Service) -> None:
    """In the server's folder, where its tokens are."""
    (service.folder / "seven.png").write_bytes(SEVEN.read_bytes())
    shown.choose(CLASSIFIER)
    shown.page.fill("[name=top_k]", "2")
    shown.give(SEVEN.read_bytes(), "seven.png")
    shown.page.locator("summary", has_text="code").click()
    shown.page.locator(".tabs button", has_text=language).click()
    code = shown.page.locator(".code").inner_text()
    command = [sys.executable, "-c", code]
    finished = subprocess.run(command, cwd=service.folder, capture_output=True, text=True, timeout=60)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count("class_id") == 2


def test_the_command_of_curl_runs_as_it_is_shown(shown: Shown, service: Service) -> None:
    (service.folder / "seven.png").write_bytes(SEVEN.read_bytes())
    shown.choose(CLASSIFIER)
    shown.page.fill("[name=top_k]", "3")
    shown.give(SEVEN.read_bytes(), "seven.png")
    shown.page.locator("summary", has_text="code").click()
    assignment, _, command = shown.page.locator(".code").inner_text().partition("\n")
    assert assignment == "KEY=$(python scripts/manage_models.py token inference)"
    finished = subprocess.run(
        ["bash", "-c", f"KEY={service.token}; {command}"],
        cwd=service.folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert len(json.loads(finished.stdout)["classes"]) == 3


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
    assert (light == "rgb(246, 247, 249)") == (scheme == "light")


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
