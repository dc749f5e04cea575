"""Reports of served models: of archives in the model store alone, made once for each."""

import os
from pathlib import Path
from typing import Any

import pytest

from mar_tools.playground import reports
from mar_tools.playground.reports import POLICY_OF_REPORT, Reports
from mar_tools.serving.torchserve_api import ServerError

NAME = "digits.mar"


class Client:
    """What TorchServe says of a model that it took from `url`."""

    def __init__(self, url: str) -> None:
        self.url = url

    def describe(self, model: str, version: str | None = None) -> list[dict[str, Any]]:
        if model != "digits":
            raise ServerError(f"no model {model}")
        return [{"modelUrl": self.url}]


def reports_of(url: str, store: Path) -> Reports:
    return Reports(Client(url), store)  # type: ignore[arg-type]


def test_the_report_of_an_archive_is_a_page_without_scripts(archives: Path) -> None:
    answer = reports_of(NAME, archives).answer("digits", "1.0")
    assert (answer.status, answer.policy) == (200, POLICY_OF_REPORT)
    assert answer.body.startswith(b"<!doctype html>")
    assert b"digits 1.0: report" in answer.body
    assert b"<script" not in answer.body


def test_a_report_is_made_again_when_its_archive_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []

    def make(archive: Path) -> bytes:
        made.append(archive)
        return b"page"

    monkeypatch.setattr(reports, "_make", make)
    (tmp_path / NAME).write_bytes(b"archive")
    found = reports_of(NAME, tmp_path)
    for changed, times in ((0, 1), (0, 1), (1, 2)):
        os.utime(tmp_path / NAME, ns=(changed, changed))
        assert found.answer("digits", "1.0").status == 200
        assert len(made) == times


@pytest.mark.parametrize("url", ["../digits.mar", "/etc/passwd", "https://a.example/digits.mar", "other.mar", "", "."])
def test_what_is_no_archive_of_the_store_has_no_report(url: str, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"archive")
    (tmp_path / "store").mkdir()
    answer = reports_of(url, tmp_path / "store").answer("digits", "1.0")
    assert answer.status == 404
    assert b"NoReportError" in answer.body


def test_an_archive_of_others_has_a_reason_instead(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"not an archive")
    answer = reports_of(NAME, tmp_path).answer("digits", "1.0")
    assert answer.status == 500
    assert NAME.encode() in answer.body


def test_a_model_that_is_not_served_has_no_report(tmp_path: Path) -> None:
    assert reports_of(NAME, tmp_path).answer("nothing", "1.0").status == 404
