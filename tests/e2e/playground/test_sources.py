"""Where a picture comes from, beside a file that is chosen: dropped, pasted, of the camera."""

import base64

from .conftest import CLASSIFIER, SEVEN, Shown

TRANSFER = """(encoded) => {
    const transfer = new DataTransfer();
    const bytes = Uint8Array.from(atob(encoded), one => one.charCodeAt(0));
    transfer.items.add(new File([bytes], 'given.png', {type: 'image/png'}));
    return transfer;
}"""
COPY = """async (encoded) => {
    const bytes = Uint8Array.from(atob(encoded), one => one.charCodeAt(0));
    await navigator.clipboard.write([new ClipboardItem({'image/png': new Blob([bytes], {type: 'image/png'})})]);
}"""
ENCODED = base64.b64encode(SEVEN.read_bytes()).decode()


def assert_it_is_a_seven(shown: Shown, name: str) -> None:
    shown.page.locator("#picture-name", has_text=f"{name}, 120").wait_for()
    shown.settle()
    assert shown.rows()[0][0] == "7"
    assert shown.complaints == []


def test_a_dropped_picture_is_answered(shown: Shown) -> None:
    shown.choose(CLASSIFIER)
    transfer = shown.page.evaluate_handle(TRANSFER, ENCODED)
    shown.page.dispatch_event("body", "dragover", {"dataTransfer": transfer})
    assert shown.page.locator("body.over").count() == 1
    shown.page.dispatch_event("body", "drop", {"dataTransfer": transfer})
    assert shown.page.locator("body.over").count() == 0
    assert_it_is_a_seven(shown, "given.png")


def test_what_is_dropped_and_is_no_file_is_told(shown: Shown) -> None:
    shown.page.dispatch_event("body", "drop", {"dataTransfer": shown.page.evaluate_handle("() => new DataTransfer()")})
    shown.page.locator("#picture-name", has_text="is no file").wait_for()


def test_a_picture_of_the_clipboard_is_pasted_by_its_keys(shown: Shown) -> None:
    shown.choose(CLASSIFIER)
    shown.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    shown.page.evaluate(COPY, ENCODED)
    shown.page.keyboard.press("Control+v")
    assert_it_is_a_seven(shown, "image.png")


def test_the_camera_gives_a_picture_and_is_let_go(shown: Shown) -> None:
    """Chromium's own camera for tests shows a green picture."""
    shown.choose(CLASSIFIER)
    shown.page.click("#open-camera")
    shown.page.locator("#take:focus").wait_for()
    shown.page.click("#take")
    shown.page.locator("#picture-name", has_text="camera.jpg").wait_for()
    shown.settle()
    assert len(shown.rows()) == 5
    assert shown.page.locator("#camera:visible").count() == 0
    assert shown.page.locator("#video").evaluate("video => video.srcObject") is None


def test_without_a_camera_the_page_says_so(shown: Shown) -> None:
    refuse = "() => { navigator.mediaDevices.getUserMedia = async () => { throw new Error('none found'); }; }"
    shown.page.evaluate(refuse)
    shown.page.click("#open-camera")
    shown.page.locator("#picture-name", has_text="No camera: none found.").wait_for()


def test_the_picture_that_was_chosen_last_is_shown(shown: Shown) -> None:
    """A large one takes longer to decode than the one after it."""
    hold = "() => { window.held = []; HTMLImageElement.prototype.decode = () => new Promise(done => held.push(done)); }"
    shown.page.evaluate(hold)
    for name in ("first.png", "second.png"):
        shown.page.set_input_files("#file", {"name": name, "mimeType": "image/png", "buffer": SEVEN.read_bytes()})
    for number in (1, 0):
        shown.page.evaluate("number => held[number]()", number)
        shown.page.locator("#picture-name", has_text="second.png").wait_for()
