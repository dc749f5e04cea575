"""The request in code runs as it is shown, whatever the picture is called: also from a shell."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from e2e.conftest import Service
from e2e.test_requests import OCTETS

from .conftest import CLASSIFIER, SEVEN, Shown

NAMES = {
    "of a shell": """it's "seven" `touch hurt` $(touch hurt).png""",
    "for several of curl": "seven[1-3]{a,b}.png",
    "for the input of curl": "-",
    "with controls": "seven\\\x1b[2J\n'touch hurt'\n.png",
    "with another direction": "seven\u202egnp.png",
}
TOKEN = "KEY=$(python scripts/manage_models.py token inference)\n"


def read_code(shown: Shown, language: str) -> str:
    shown.page.locator(".of-request summary").first.click()
    shown.page.locator(".languages button", has_text=language).click()
    return shown.page.locator(".code").text_content() or ""


def command_of(language: str, code: str, folder: Path) -> list[str]:
    if language == "curl":
        assert code.startswith(TOKEN)
        return ["bash", "-c", code.removeprefix(TOKEN)]
    if language == "JavaScript":
        (folder / "ask.mjs").write_text(code)
        return [shutil.which("node") or pytest.skip("needs node"), "ask.mjs"]
    return [sys.executable, "-c", code]


def run_code(language: str, code: str, folder: Path, service: Service) -> str:
    shutil.copy(service.folder / "key_file.json", folder)
    environment = {**os.environ, "KEY": service.token}
    finished = subprocess.run(
        command_of(language, code, folder), cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.mark.parametrize("language", ["curl", "vision_client", "Python", "JavaScript"])
def test_the_code_runs_as_it_is_shown(language: str, shown: Shown, service: Service, tmp_path: Path) -> None:
    shown.choose(CLASSIFIER)
    shown.page.fill("[name=top_k]", "2")
    shown.give(SEVEN.read_bytes(), "seven.png")
    (tmp_path / "seven.png").write_bytes(SEVEN.read_bytes())
    said = run_code(language, read_code(shown, language), tmp_path, service)
    expected = service.post(CLASSIFIER, SEVEN.read_bytes(), {**OCTETS, "X-Inference-Options": "top_k=2"}).json()
    if language == "curl":
        assert json.loads(said) == expected
    else:
        assert said.count("class_id") == 2
        assert all(str(found["score"])[:5] in said for found in expected["classes"])


@pytest.mark.parametrize("language", ["curl", "Python", "JavaScript"])
def test_the_name_of_a_file_is_no_code(language: str, shown: Shown, service: Service, tmp_path: Path) -> None:
    for name in NAMES.values():
        (tmp_path / name).write_bytes(SEVEN.read_bytes())
        code = write_code(shown, language, name)
        assert not any(unseen in code for unseen in "\x1b\u202e")
        assert "class_id" in run_code(language, code, tmp_path, service)
        assert not (tmp_path / "hurt").exists()


def write_code(shown: Shown, language: str, name: str) -> str:
    snippets = "new URL('playground/snippets.js', document.baseURI)"
    write = f"async ([language, request]) => (await import({snippets})).LANGUAGES[language](request)"
    request = {"model": CLASSIFIER, "version": "", "options": {}, "explains": False, "file": name}
    return str(shown.page.evaluate(write, [language, request]))


def test_the_button_copies_the_code(shown: Shown) -> None:
    shown.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    shown.choose(CLASSIFIER)
    shown.give(SEVEN.read_bytes(), "seven.png")
    code = read_code(shown, "Python")
    shown.page.click(".copy")
    shown.page.locator(".copied", has_text="Copied.").wait_for()
    assert shown.page.evaluate("navigator.clipboard.readText()") == code


def test_where_the_browser_does_not_copy_the_code_is_selected(shown: Shown) -> None:
    shown.choose(CLASSIFIER)
    shown.give(SEVEN.read_bytes(), "seven.png")
    code = read_code(shown, "curl")
    shown.page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('not allowed')); }")
    shown.page.click(".copy")
    shown.page.locator(".copied", has_text="press Ctrl+C").wait_for()
    assert shown.page.evaluate("getSelection().toString()").strip() == code
