"""Who can use the page: by keyboard alone, by what a screen reader says, in both schemes, without motion."""

from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe

from mar_tools.playground.page_server import PageServer

from .conftest import CLASSIFIER, DETECTOR, SCENE, SEVEN, Shown

OPEN_ALL = "() => document.querySelectorAll('details').forEach(one => { one.open = true; })"


def find_faults(shown: Shown) -> list[str]:
    """Return what axe-core finds: names and roles of controls, contrast, order of headings, and more."""
    found = Axe().run(shown.page).response["violations"]
    return [f"{fault['id']}: {node['target']}" for fault in found for node in fault["nodes"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_fault(scheme: str, page_server: PageServer, open_page: Callable[..., Shown]) -> None:
    shown = open_page(page_server.url, color_scheme=scheme)
    shown.page.locator(".options label").first.wait_for()
    assert find_faults(shown) == []
    shown.choose(DETECTOR)
    shown.give(SCENE.read_bytes(), "scene.jpg")
    shown.page.evaluate(OPEN_ALL)
    assert find_faults(shown) == []
    shown.give(b"not an image", "bad.png")
    assert find_faults(shown) == []
    shown.page.click("nav a[href=docs]")
    shown.page.locator(".route").first.wait_for()
    shown.page.evaluate(OPEN_ALL)
    assert find_faults(shown) == []


def press_until(shown: Shown, selector: str) -> None:
    """Press Tab until an element has the focus, which must be seen."""
    for _ in range(40):
        shown.page.keyboard.press("Tab")
        style = "one => one.matches(':focus-visible') && getComputedStyle(one).outlineStyle"
        if shown.page.locator(selector).first.evaluate("one => one === document.activeElement"):
            assert shown.page.locator(selector).first.evaluate(style) == "solid"
            return
    raise AssertionError(f"no Tab leads to {selector}")


def test_the_keyboard_alone_leads_from_a_sample_to_the_results_and_the_code(shown: Shown) -> None:
    press_until(shown, "#samples button")
    shown.page.keyboard.press("Enter")
    shown.settle()
    press_until(shown, ".model")
    shown.page.keyboard.type(DETECTOR)  # as in any list
    shown.page.locator(".results button").first.wait_for()
    press_until(shown, ".view")
    width = shown.page.locator(".canvas").bounding_box()
    shown.page.keyboard.press("+")
    larger = shown.page.locator(".canvas").bounding_box()
    assert width is not None
    assert larger is not None
    assert larger["width"] == pytest.approx(1.5 * width["width"], rel=0.05)
    press_until(shown, ".results button")
    assert shown.page.locator(".overlay .item.on").count() == 1
    press_until(shown, ".of-request summary")
    shown.page.keyboard.press("Enter")
    press_until(shown, ".copy")


def test_a_screen_reader_hears_what_was_found_and_what_failed(shown: Shown) -> None:
    shown.choose(CLASSIFIER)
    shown.give(SEVEN.read_bytes(), "seven.png")
    heard = shown.page.locator(".panel").aria_snapshot()
    assert "status: Best class 7, 0.9" in heard
    assert 'img "seven.png"' in heard
    assert 'spinbutton "top_k"' in heard
    shown.give(b"not an image", "bad.png")
    assert "alert" in shown.page.locator(".panel").aria_snapshot()


def test_nothing_moves_for_who_wants_no_motion(page_server: PageServer, open_page: Callable[..., Shown]) -> None:
    shown = open_page(page_server.url, reduced_motion="reduce")
    shown.choose(DETECTOR)
    shown.page.route("**/predictions/**", lambda route: None)  # no answer comes
    shown.page.set_input_files("#file", SCENE)
    shown.page.locator("[aria-busy] .status", has_text="Asking").wait_for()
    assert shown.page.evaluate("document.getAnimations().length") == 0
