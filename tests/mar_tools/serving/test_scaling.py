import threading
from pathlib import Path
from typing import Any

import pytest
from other_users import OPERATOR, STRANGER, as_user, needs_root, open_folder

from mar_tools.serving.scaling import _keeping_still, scale


class Worker:
    """Keeps still at its first description, as a worker that is to go does."""

    def __init__(self, drain: Path) -> None:
        self.drain, self.described = drain, 0

    def with_deadline(self, deadline: float) -> "Worker":
        return self

    def describe_card(self, model: str, version: str) -> dict[str, Any]:
        self.described += 1
        for asked in self.drain.parent.glob("leaving-*"):
            asked.rename(asked.with_name(asked.name.replace("leaving", "still")))
        return {}


class Scaled:
    """A client whose server has one worker, and takes any number."""

    def describe_default(self, model: str) -> dict[str, Any]:
        return {"modelVersion": "1.0", "workers": [{"pid": 11, "status": "READY"}]}

    def scale(self, model: str, version: str | None, workers: int) -> str:
        return f"{model} {workers}"


@needs_root
def test_a_server_of_another_user_is_scaled_without_a_pause() -> None:
    with open_folder(OPERATOR) as folder:
        (folder / "config.properties").touch()
        (folder / "logs").mkdir(mode=0o700)
        scaled = as_user(STRANGER, lambda: scale(Scaled(), folder / "config.properties", "digits", None, 0))  # type: ignore[arg-type]
    assert scaled == "digits 0"


def test_what_keeps_still_is_asked_for_no_more_descriptions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three threads ask for three workers; one description had stilled them all."""

    class InTurn:
        def __init__(self, target: Any, args: tuple[Any, ...], daemon: bool) -> None:
            self.start = lambda: target(*args)

    monkeypatch.setattr(threading, "Thread", InTurn)
    worker = Worker(tmp_path / "drain")
    with _keeping_still(worker, tmp_path / "drain", "digits", "1.0", [11, 12, 13]):  # type: ignore[arg-type]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["still-11", "still-12", "still-13"]
    assert worker.described == 1
    assert list(tmp_path.iterdir()) == []
