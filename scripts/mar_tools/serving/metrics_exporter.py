"""The process beside a server that shows its metrics: started with it, ended with it, and never in its way.

What it shows is in `mar_tools.monitoring`. Its workers' side is `vision_serving.worker.metrics`.
"""

import ipaddress
import subprocess
import sys
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

from mar_tools.command_line import ROOT
from mar_tools.serving.ports import ANY_HOST, LOOPBACK, find_obstacle
from mar_tools.serving.processes import EXPORTER, end_processes, find_exporters, find_temporary
from mar_tools.waiting import wait_until
from vision_serving.errors import ConfigError
from vision_serving.worker.metrics import METRICS_FOLDER
from vision_serving.worker.server_settings import read_count, read_properties, read_text, state_folder

# Of config.properties; TorchServe ignores them.
METRICS_KEY, HOST_KEY, GOLDEN_KEY = "metrics_port", "metrics_host", "metrics_golden_s"
DEFAULT_GOLDEN_S = 60
LONGEST_GOLDEN_S = 86_400
START_S = 20.0  # it imports for a second on a machine that is not busy
ANSWER_S = 5.0
HEALTH = "/healthy"
GO_ON = "predictions go on without metrics"


def metrics_port(values: Mapping[str, str]) -> int:
    """Return the port of the exporter, 0 for none. Raises ConfigError for what is no port."""
    return read_count(values, METRICS_KEY, 0, least=0, most=65535)


def metrics_host(values: Mapping[str, str]) -> str:
    """Return the address at which the exporter listens: this machine's own, unless the settings name another.

    Raises ConfigError for what is no address.
    """
    host = values.get(HOST_KEY, LOOPBACK)
    try:
        return str(ipaddress.IPv4Address(host))
    except ValueError as error:
        advice = f"{LOOPBACK} is this machine alone, 0.0.0.0 is everybody"
        raise ConfigError(f"config.properties: {HOST_KEY}: expected an IPv4 address, got {host!r}; {advice}") from error


def golden_interval_s(values: Mapping[str, str]) -> int:
    """Return the seconds between two golden predictions of the exporter, 0 for none. Raises ConfigError."""
    return read_count(values, GOLDEN_KEY, DEFAULT_GOLDEN_S, least=0, most=LONGEST_GOLDEN_S)


def metrics_folder(temporary: Path) -> Path:
    """Return where the workers of the server with this temporary folder write."""
    return temporary / "metrics"


def prepare_metrics(config: Path, temporary: Path) -> dict[str, str]:
    """Make the folder of a server that is about to start; return the environment that shows it to its workers."""
    if not metrics_port(read_properties(read_text(config))):
        return {}
    folder = metrics_folder(temporary)
    folder.mkdir(mode=0o700)
    return {METRICS_FOLDER: str(folder)}


def start_exporter(config: Path, temporary: Path) -> None:
    """Start it where the settings name a port that is free, and the server has a folder for it."""
    port = _wanted_port(config, temporary)
    if not port or find_obstacle(_host(config), port) is not None:
        return
    command = [sys.executable, str(ROOT / "scripts" / EXPORTER), "--config", str(config)]
    log = _log(config)
    log.touch(mode=0o600)
    with log.open("wb") as output:
        subprocess.Popen(
            [*command, "--folder", str(metrics_folder(temporary))],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C in this terminal must not reach it
        )


def find_silence(config: Path) -> str | None:
    """Wait for a new exporter's first answer. Return why there is none, None where there is or need not be."""
    temporary = find_temporary(config)
    port = 0 if temporary is None else _wanted_port(config, temporary)
    if temporary is None or not port:
        return None
    wait_until(lambda: _answers(port, config, temporary) or not find_exporters(config, temporary), START_S)
    if _answers(port, config, temporary):
        return None
    obstacle = find_obstacle(_host(config), port)
    if obstacle is not None:
        place = f"port {port} ({METRICS_KEY} in {config.name})"
        return f"{place} {obstacle}; stop it, or change the port and restart: {GO_ON}"
    said = _log(config).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    if not said:  # its port was taken at the start, or somebody killed it
        return f"the exporter of metrics does not run; serve_models.py watch, or restart, starts it: {GO_ON}"
    return f"the exporter of metrics has ended: {said[-1].removeprefix('error: ')}; {GO_ON}"


def mend_exporter(config: Path) -> str | None:
    """Start it again where it has ended, or no longer answers. Return what was done or cannot be done, else None."""
    temporary = find_temporary(config)
    try:
        port = 0 if temporary is None else _wanted_port(config, temporary)
    except (ConfigError, OSError) as error:  # somebody edits the settings; the server goes on, and is watched
        return f"{error}; correct it: until then nobody starts the exporter of metrics again"
    if temporary is None or not port or _answers(port, config, temporary):
        return None
    running = find_exporters(config, temporary)
    end_processes(running)
    start_exporter(config, temporary)
    fault = "no longer answered" if running else "had ended"
    return find_silence(config) or f"the exporter of metrics {fault}, and was started again"


def _wanted_port(config: Path, temporary: Path) -> int:
    """Return where it listens; 0 where the settings name none, or the server was started without it."""
    return metrics_port(read_properties(read_text(config))) if metrics_folder(temporary).is_dir() else 0


def _host(config: Path) -> str:
    return metrics_host(read_properties(read_text(config)))


def _answers(port: int, config: Path, temporary: Path) -> bool:
    """Return whether this server's exporter answers there, and not another's: it says which process it is."""
    opener = build_opener(ProxyHandler({}))  # no proxy of the environment
    host = _host(config)
    try:
        with opener.open(
            f"http://{LOOPBACK if host == ANY_HOST else host}:{port}{HEALTH}", timeout=ANSWER_S
        ) as response:
            said = response.read(100).decode(errors="replace")
    except (OSError, HTTPException):
        return False
    return said in {str(process.pid) for process in find_exporters(config, temporary)}


def _log(config: Path) -> Path:
    return state_folder(config) / "logs" / "exporter.log"
