"""A front, before one TorchServe or several machines: nginx with the configuration of deploy/nginx."""

import getpass
import os
import resource
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

import psutil

from mar_tools.front.certificates import make_certificate
from mar_tools.front.client_keys import ClientKeys
from mar_tools.front.front_record import FrontRecord, remove_front_record, write_front_record
from mar_tools.front.machines import Machines, ask_machines
from mar_tools.front.master import has_workers, is_beginning, replaced
from mar_tools.front.nginx import JS_MODULE, STREAM_MODULE, Nginx, NginxError, find_nginx, first_failure
from mar_tools.front.settings import FrontSettings
from mar_tools.front.templates import SOURCE, fill, fill_routes, fill_routes_to_machines
from mar_tools.playground.assets import EXAMPLES, POLICY, describe_routes
from mar_tools.playground.assets import SOURCE as PAGES
from mar_tools.serving.address import read_address
from mar_tools.serving.memory_bounds import read_bounds
from mar_tools.serving.ports import find_obstacle
from mar_tools.serving.processes import wait_until_ended
from mar_tools.serving.start_checks import LONGEST_SOCKET_PATH
from mar_tools.waiting import wait_until
from vision_serving.errors import ConfigError
from vision_serving.validation import parse_config, read_yaml
from vision_serving.worker.server_settings import DEFAULT_BODY_BYTES, read_count, read_properties, read_text

SETTINGS = SOURCE / "front.yaml"
HINT = "give --settings with a file as deploy/nginx/front.yaml"
FIRST_CLIENT = "first"
STOP_TIMEOUT_S = 200.0  # longer than worker_shutdown_timeout
RELOAD_TIMEOUT_S = 20.0
OPEN_FILES = 16384


@dataclass(frozen=True)
class FrontStatus:
    """pid: of nginx's master process, None when it does not run. machines: by address, whether they are ready."""

    pid: int | None
    url: str
    nginx: str
    clients: list[str]
    machines: dict[str, str]


class Front:
    """settings: a front.yaml; config: TorchServe's config.properties. Raises ConfigError for what it cannot read."""

    def __init__(self, folder: Path, settings: Path, config: Path) -> None:
        self.folder = folder.resolve()
        self.logs = self.folder / "logs"
        self._settings_file = settings.resolve()
        self._settings = parse_config(FrontSettings, read_yaml(settings, HINT), str(settings))
        self._clients_file = self._given(self._settings.clients) or self.folder / "clients.map"
        self.clients = ClientKeys(self._clients_file)
        self._config = config
        self._conf = self.folder / "nginx.conf"
        self._error_log = self.logs / "error.log"

    @property
    def url(self) -> str:
        """Return where this machine reaches it."""
        host, _, port = self._settings.listen.rpartition(":")
        scheme = "https" if self._settings.tls else "http"
        return f"{scheme}://{'127.0.0.1' if host in ('', '0.0.0.0', '*') else host}:{port}"

    @property
    def asks_for_keys(self) -> bool:
        return self._settings.only_client is None

    @property
    def certificate(self) -> Path:
        return self._given(self._settings.certificate) or self.folder / "certificate.pem"

    @property
    def certificate_key(self) -> Path:
        return self._given(self._settings.certificate_key) or self.folder / "certificate.key"

    def _given(self, path: Path | None) -> Path | None:
        """Return a path of the settings, which begins where they lie."""
        return None if path is None else self._settings_file.parent / path

    @property
    def machines(self) -> Machines | None:
        """Return those that it shares its requests out to; None where it stands before a TorchServe."""
        return self._settings.machines

    def process(self) -> psutil.Process | None:
        """Return nginx's master process, None when there is none."""
        try:
            process = psutil.Process(int((self.folder / "nginx.pid").read_text()))
            return process if str(self._conf) in " ".join(process.cmdline()) else None
        except (FileNotFoundError, ValueError, psutil.Error):
            return None

    def settled_process(self) -> psutil.Process | None:
        """Return nginx's master process as it takes signals, None when there is none. One that begins is waited for."""
        wait_until(lambda: self.process() is not None or not is_beginning(self._conf), RELOAD_TIMEOUT_S)
        master = self.process()
        if master is not None:
            wait_until(lambda: has_workers(master), RELOAD_TIMEOUT_S)
        return master

    def start(self) -> str | None:
        """Returns the key of the first client, where there was none yet. Raises NginxError or ConfigError."""
        nginx = self._prepare()
        wants_first = self.asks_for_keys and self._settings.clients is None and not self.clients.names()
        key = self.clients.add(FIRST_CLIENT) if wants_first else None
        try:
            nginx.run(*self._arguments(self._conf))
        except NginxError:
            if key is not None:  # nobody would ever see it
                self.clients.remove(FIRST_CLIENT)
            raise
        self._write_record()
        return key

    def become_nginx(self) -> NoReturn:
        """Let nginx take the place of this process. SIGQUIT ends it when what is under way is answered.

        No client gets a key: nobody may be there to read it. Raises NginxError or ConfigError.
        """
        nginx = self._prepare()
        self._write_record()
        command = [str(nginx.binary), *self._arguments(self._conf), "-g", "daemon off;"]
        os.execve(nginx.binary, command, nginx.environment)

    def _prepare(self) -> Nginx:
        """Write all that nginx reads, where none runs yet."""
        if self.process() is not None:
            raise NginxError(f"the front of {self.folder} is already running; use reload, or stop it first")
        most, length = LONGEST_SOCKET_PATH - len("/front.sock"), len(os.fsencode(self.folder))
        if length > most:
            raise ConfigError(f"{self.folder}: expected at most {most} bytes of path, got {length}; give a shorter")
        nginx = find_nginx()
        self._prepare_folder()
        self._prepare_certificate()
        self._write_configuration(nginx)
        for name in ("front.sock", "look.sock"):
            (self.folder / name).unlink(missing_ok=True)  # of an nginx that was killed
        self._require_port()
        return nginx

    def reload(self) -> None:
        """Read settings, keys and certificates again; what is under way ends undisturbed.

        Raises NginxError when nginx refuses them, and goes on with the old ones.
        """
        master = self.settled_process()
        if master is None:
            raise NginxError(f"no front runs in {self.folder}; start it with python scripts/serve_front.py start")
        self._write_configuration(find_nginx())
        earlier, log_size = set(master.children()), self._error_log.stat().st_size
        master.send_signal(signal.SIGHUP)
        if not wait_until(lambda: replaced(earlier, master), RELOAD_TIMEOUT_S):
            said = self._error_log.read_bytes()[log_size:].decode(errors="replace")
            raise NginxError(f"nginx goes on with its old configuration: {first_failure(said)}")
        self._write_record()

    def stop(self) -> bool:
        """Stop when what is under way is answered. False when nothing was running."""
        master = self.process()
        if master is None:
            return False
        family = [master, *master.children()]
        master.send_signal(signal.SIGQUIT)
        for survivor in wait_until_ended(family, STOP_TIMEOUT_S):
            survivor.kill()
        if self.machines is None:
            remove_front_record(self._config)
        return True

    def status(self) -> FrontStatus:
        master = self.process()
        pid, version = master.pid if master else None, find_nginx().version()
        return FrontStatus(pid, self.url, version, self.clients.names(), self._ask_machines())

    def _ask_machines(self) -> dict[str, str]:
        if self.machines is None:
            return {}
        return ask_machines(self.machines, self._certificate_of(self.machines), self._settings.path_prefix)

    def _write_record(self) -> None:
        """Tell the exporter of this machine's TorchServe of the front before it."""
        if self.machines is not None:
            return
        certificate = str(self.certificate) if self._settings.tls else ""
        places = {"folder": str(self.folder), "clients": str(self._clients_file)}
        write_front_record(self._config, FrontRecord(**places, certificate=certificate))

    def _arguments(self, conf: Path) -> list[str]:
        return ["-e", str(self._error_log), "-p", str(self.folder), "-c", str(conf)]

    def _prepare_folder(self) -> None:
        for name in ("", "logs", "temporary", "local"):
            (self.folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._settings.clients is None:
            self.clients.write_missing()
        elif not self._clients_file.is_file():
            advice = "add-client writes such a file, into clients.map of its --folder"
            raise ConfigError(f"{self._settings_file}: clients: no file {self._clients_file}; {advice}")

    def _prepare_certificate(self) -> None:
        if not self._settings.tls:
            return
        given = (self._settings.certificate, self._settings.certificate_key)
        if any(given) and not all(given):
            raise ConfigError(f"{self._settings_file}: give both of certificate and certificate_key, or neither")
        if not any(given) and not (self.certificate.is_file() and self.certificate_key.is_file()):
            make_certificate(self.certificate, self.certificate_key, self._settings.names)

    def _require_files(self) -> None:
        files = {"certificate": self.certificate, "certificate_key": self.certificate_key} if self._settings.tls else {}
        if self.machines is not None:
            files["machines.certificate"] = self._certificate_of(self.machines)
        for key, path in files.items():
            if not path.is_file():
                raise ConfigError(f"{self._settings_file}: {key}: no file {path}; expected one in PEM")

    def _require_port(self) -> None:
        host, _, port = self._settings.listen.rpartition(":")
        obstacle = find_obstacle("0.0.0.0" if host == "*" else host.strip("[]"), int(port))
        if obstacle is not None:
            raise NginxError(f"port {port} (listen in {self._settings_file}) {obstacle}; stop it or change the port")

    def _certificate_of(self, machines: Machines) -> Path:
        return self._settings_file.parent / machines.certificate

    def _write_configuration(self, nginx: Nginx) -> None:
        """Write a configuration that nginx takes."""
        self._require_files()
        (self.folder / "openapi.json").write_bytes(describe_routes())
        candidate = self.folder / "nginx.conf.new"
        candidate.touch(mode=0o600)
        candidate.write_text(self._render(nginx), encoding="utf-8")
        nginx.run("-t", "-q", *self._arguments(candidate))
        os.replace(candidate, self._conf)

    def _render(self, nginx: Nginx) -> str:
        address = read_address(self._config)
        properties = read_properties(read_text(self._config))
        settings = self._settings
        bounds = read_bounds(properties, settings.explanations_at_once)
        root = os.geteuid() == 0  # then nginx's workers would be `nobody`, who may not read TorchServe's tokens
        values = settings.model_dump() | {
            "folder": self.folder,
            "source": SOURCE,
            "js_module": nginx.modules / JS_MODULE,
            "stream_module": nginx.modules / STREAM_MODULE,
            "user": f"user {getpass.getuser()};" if root else "",
            "open_files": min(OPEN_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),
            "key_file": address.key_file or "",
            "inference": _host_and_port(address.inference),
            "management": _host_and_port(address.management),
            "max_body": read_count(properties, "max_request_size", DEFAULT_BODY_BYTES),
            "small_slots": bounds.small,
            "medium_slots": bounds.medium,
            "large_slots": bounds.large,
            "medium_of_a_client": max(1, bounds.medium // 4),
            "allowed_origins": " ".join(f'"{origin}" $http_origin;' for origin in settings.allowed_origins),
            "vary": "Origin" if settings.allowed_origins else '""',
            "clients": self._clients_file,
            "only_client": settings.only_client or "",
            "listens_by": "ssl http2" if settings.tls else "",
            "certificates": self._certificate_lines() if settings.tls else "",
            "pages": PAGES,
            "page_policy": POLICY,
            "examples": EXAMPLES,
        }
        if self.machines is None:
            values |= fill_routes(values)
        else:
            values |= fill_routes_to_machines(self.machines, self._certificate_of(self.machines), values)
        values["playground"] = fill("playground.conf", values) if settings.playground else ""
        return fill("nginx.conf", values)

    def _certificate_lines(self) -> str:
        return f'ssl_certificate "{self.certificate}";\n        ssl_certificate_key "{self.certificate_key}";'


def _host_and_port(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.port is None:
        raise ConfigError(f"expected TorchServe at http://HOST:PORT, which the front makes HTTPS of; got {url!r}")
    return parts.netloc
