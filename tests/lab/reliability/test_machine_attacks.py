"""What an operator's command may say, and what other users of the machine keep: without a server."""

import os
import signal
import subprocess
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from lab.reliability import machine_attacks
from lab.reliability.machine_attacks import (
    Operator,
    look_alikes,
    lose_the_folder,
    read_only,
    serve_what_is_read_only,
    squatted,
)
from lab.testbed.findings import Episode
from mar_tools.serving.config_file import with_values
from mar_tools.serving.server import Server
from mar_tools.serving.temporary_server import own_places

ACTIONS = ("start", "status")


@pytest.mark.parametrize(
    ("script", "happened", "problems"),
    [
        ("print('stopped')", True, 0),
        ("import sys; sys.exit('error: the disk of TMPDIR is full; free some')", False, 0),
        ("import sys; sys.exit('full')", False, 1),
        ("import sys; sys.exit('error: one\\nerror: two')", False, 1),
        ("raise PermissionError('error: of nobody')", False, 1),
    ],
    ids=["it happened", "one line", "no error line", "two lines", "a traceback"],
)
def test_a_command_does_what_it_is_for_or_says_why_in_one_line(
    script: str, happened: bool, problems: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "command.py").write_text(script)
    monkeypatch.setattr(machine_attacks, "SCRIPT", tmp_path / "command.py")
    episode = Episode()
    operator = Operator(SimpleNamespace(config=tmp_path), episode)  # type: ignore[arg-type]
    assert operator.run("stop", "stop") == happened
    assert len(episode.problems) == problems
    assert episode.figures == {"stop_status": 0 if happened else 1}


def test_look_alikes_have_the_command_lines_of_a_server_and_end_with_the_row(tmp_path: Path) -> None:
    with look_alikes(tmp_path) as others:
        lines = [Path(f"/proc/{other.pid}/cmdline").read_bytes() for other in others]
        assert all(other.poll() is None for other in others)
    assert f"{tmp_path}/.ts.sock.9000".encode() in lines[0]
    assert b"org.pytorch.serve.ModelServer" in lines[1]
    assert all(other.poll() is not None for other in others)


def test_a_squatted_folder_is_of_another_user_where_there_can_be_one(tmp_path: Path) -> None:
    (tmp_path / "taken" / "old").mkdir(parents=True)
    with squatted(tmp_path / "taken") as kept:
        assert [path.name for path in (tmp_path / "taken").iterdir()] == [kept.name]
        assert all((path.stat().st_uid != os.geteuid()) == (os.geteuid() == 0) for path in (kept, kept.parent))
    assert not (tmp_path / "taken").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="another user's folder needs root")
@pytest.mark.parametrize(
    ("script", "problems"),
    [
        ("", []),
        ("import shutil; shutil.rmtree({folder!r})", ["the folder of another user, or what it holds, was removed"]),
        ("import os; os.remove({folder!r} + '/kept')", ["the folder of another user, or what it holds, was removed"]),
    ],
    ids=["left alone", "removed", "emptied"],
)
def test_a_command_that_removes_the_folder_of_another_user_is_seen(
    script: str, problems: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = tmp_path / "noted"
    (tmp_path / "command.py").write_text(
        "import sys\nif sys.argv[1] == 'start': " + (script or "pass").format(folder=str(noted))
    )
    monkeypatch.setattr(machine_attacks, "SCRIPT", tmp_path / "command.py")
    episode = Episode()
    with subprocess.Popen(["sleep", "60"]) as frontend:
        server = SimpleNamespace(config=tmp_path, temporary=noted, ports=dict)
        world = SimpleNamespace(server=server, frontend=lambda: psutil.Process(frontend.pid))
        lose_the_folder(world, Operator(server, episode), episode)  # type: ignore[arg-type]
    assert episode.problems == problems
    assert frontend.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("script", "problems"),
    [
        ("import sys; 'vision_state=/' in open(sys.argv[3]).read() or sys.exit('error: cannot write here')", []),
        ("", ["a start that can write nowhere says that it happened"]),
        ("import sys; sys.exit('error: cannot write here')", [f"no {a} with a folder elsewhere" for a in ACTIONS]),
    ],
    ids=["right", "never refused", "always refused"],
)
def test_a_checkout_that_is_read_only_is_served_with_a_folder_elsewhere_and_not_without(
    script: str, problems: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "command.py").write_text(script)
    monkeypatch.setattr(machine_attacks, "SCRIPT", tmp_path / "command.py")
    monkeypatch.setattr(machine_attacks, "read_only", lambda folder: nullcontext(1))
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "config.properties").write_text(with_values("", own_places()))
    episode = Episode()
    serve_what_is_read_only(Server(folder / "config.properties"), episode)
    assert episode.problems == problems


def test_what_is_mounted_read_only_is_so_until_the_end(tmp_path: Path) -> None:
    with read_only(tmp_path) as is_so:
        if is_so:
            with pytest.raises(OSError, match="Read-only"):
                (tmp_path / "new").touch()
    (tmp_path / "new").touch()
