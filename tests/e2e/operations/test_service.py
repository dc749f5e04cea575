"""What the units of systemd run, by a user without rights, where a single folder can be written to."""

import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import requests
from other_users import OPERATOR, needs_root, open_folder

from mar_tools.front.front import SETTINGS
from mar_tools.serving.ports import LOOPBACK, find_free_ports
from mar_tools.serving.service_units import closed_to_others, fill_units
from mar_tools.waiting import wait_until

from ..conftest import ROOT, write_configuration

READY_S, END_S = 300.0, 120.0
SEARCHED = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # by systemd
# $1: what can be written to. $2: the folder of Python. $3: one above it that others may not enter, or nothing.
READ_ONLY = """
set -eu
state=$1 python=$2 closed=$3; shift 3
mount --bind "$state" "$state"
if [ -n "$closed" ]; then
    mount --bind "$python" "$state"
    mount -t tmpfs -o mode=755 none "$closed"
    mkdir -p "$python"
    mount --bind "$state" "$python"
    umount "$state"
fi
mount -o remount,bind,ro /
exec "$@"
"""
AS_OPERATOR = ["setpriv", f"--reuid={OPERATOR}", f"--regid={OPERATOR}", "--clear-groups", "--no-new-privs"]


class Units:
    """The units, started as systemd would, but for what only systemd can do."""

    def __init__(self, config: Path, state: Path) -> None:
        self._units = fill_units(Path(sys.executable), config, in_a_home=False)
        self._config, self._state = config, state
        name = f"vision-test-{secrets.token_hex(8)}"
        self._environment = {"PATH": SEARCHED, "NOTIFY_SOCKET": f"@{name}"}
        self._heard: list[str] = []
        self._manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._manager.bind(f"\0{name}")
        self._manager.settimeout(READY_S)
        threading.Thread(target=self._listen, daemon=True).start()

    def _values(self, unit: str, key: str) -> list[str]:
        lines = (line.partition("=") for line in self._units[unit].splitlines())
        return [value.replace("%S/vision-serving", str(self._state)) for name, _, value in lines if name == key]

    @contextmanager
    def started(self, unit: str, *options: object) -> Iterator["subprocess.Popen[bytes]"]:
        [command] = self._values(unit, "ExecStart")
        environment = self._environment | dict(line.split("=", 1) for line in self._values(unit, "Environment"))
        closed = closed_to_others(Path(sys.executable).resolve())
        places = [str(self._state), sys.base_prefix, str(closed or "")]
        wrapped = ["unshare", "--mount", "sh", "-c", READ_ONLY, "sh", *places, *AS_OPERATOR, *command.split()]
        process = subprocess.Popen([*wrapped, *map(str, options)], env=environment, cwd=self._state)
        try:
            yield process
        finally:
            if process.poll() is None:
                for one in [*psutil.Process(process.pid).children(recursive=True), process]:
                    one.kill()
            process.wait()

    def command(self, beside: "subprocess.Popen[bytes]", script: str, *arguments: str) -> str:
        """Type a command in another shell of that machine; return what it says."""
        inside = ["nsenter", f"--target={beside.pid}", "--mount", *AS_OPERATOR, sys.executable]
        command = [*inside, str(ROOT / "scripts" / script), *arguments, "--config", str(self._config)]
        finished = subprocess.run(command, env={"PATH": SEARCHED}, cwd="/", capture_output=True, text=True)
        assert finished.returncode == 0, finished.stderr
        return finished.stdout

    def hears(self, word: str) -> bool:
        """Return whether they say this, or have said it."""
        return wait_until(lambda: word in self._heard, READY_S)

    def _listen(self) -> None:
        with suppress(TimeoutError):
            while True:
                self._heard.append(self._manager.recv(100).decode())


@needs_root
@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
@pytest.mark.skipif(sys.platform != "linux", reason="mount namespaces are Linux's")
def test_the_units_write_into_one_folder_alone(archives: Path, seven: bytes) -> None:
    with ExitStack() as stack:
        place, state = stack.enter_context(open_folder(0)), stack.enter_context(open_folder(OPERATOR))
        (place / "model_store").mkdir()
        (place / "workflow_store").mkdir()
        shutil.copy(archives / "digits.mar", place / "model_store")
        front_port, metrics_port = find_free_ports(2)
        config = write_configuration(place, metrics_port=str(metrics_port))
        settings = place / "front.yaml"
        settings.write_text(SETTINGS.read_text().replace("127.0.0.1:8443", f"127.0.0.1:{front_port}"))
        units = Units(config, state)

        server = stack.enter_context(units.started("vision-server.service"))
        assert units.hears("READY=1")
        key = units.command(server, "serve_front.py", "add-client", "camera", "--state", str(state)).strip()
        front = stack.enter_context(units.started("vision-front.service", "--settings", settings))
        url = f"https://{LOOPBACK}:{front_port}"
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "image/png"}
        assert wait_until(lambda: answers(f"{url}/ping"), READY_S)
        answer = requests.post(f"{url}/predictions/digits", data=seven, headers=headers, verify=False, timeout=60)
        assert answer.json()["classes"][0]["label"] == "7"
        assert "vision_" in requests.get(f"http://{LOOPBACK}:{metrics_port}/metrics", timeout=60).text

        assert "golden prediction right" in units.command(server, "health_probe.py", "--state", str(state))
        assert "digits" in units.command(server, "serve_models.py", "status", "--state", str(state))
        assert "digits" in units.command(server, "manage_models.py", "list", "--state", str(state))
        assert units.hears("WATCHDOG=1")
        front.send_signal(signal.SIGQUIT)
        assert front.wait(END_S) == 0
        server.send_signal(signal.SIGTERM)
        assert units.hears("STOPPING=1")
        assert server.wait(END_S) == 0
        assert {path.name for path in state.iterdir()} == {"front", "logs"}


def answers(url: str) -> bool:
    try:
        return requests.get(url, verify=False, timeout=5).status_code < 600
    except requests.RequestException:
        return False
