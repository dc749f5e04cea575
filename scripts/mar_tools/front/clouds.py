"""What SageMaker, Vertex AI and Azure ML tell a container by its environment, as settings of a server and its front."""

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from mar_tools.archives.archive import open_archive
from mar_tools.front.templates import SOURCE
from mar_tools.serving.archive_choice import link_archives
from mar_tools.serving.config_file import with_absolute_paths, with_values
from mar_tools.serving.metrics_exporter import METRICS_KEY
from mar_tools.serving.ports import LOOPBACK, find_free_ports, free_addresses
from vision_serving.errors import ConfigError
from vision_serving.validation import read_yaml
from vision_serving.worker.server_settings import STATE_KEY, read_properties, read_text

MODEL_VARIABLE = "VISION_MODEL"
PORT_VARIABLES = ("AIP_HTTP_PORT", "SAGEMAKER_BIND_TO_PORT")
DEFAULT_PORT = 8080
AZURE_MODELS, SAGEMAKER_MODELS = "AZUREML_MODEL_DIR", Path("/opt/ml/model")
VERTEX_HEALTH, VERTEX_PREDICT, VERTEX_MODELS = "AIP_HEALTH_ROUTE", "AIP_PREDICT_ROUTE", "AIP_STORAGE_URI"
HEALTH_ROUTES = ("/ping",)
PREDICT_ROUTES = ("/invocations", "/score")
ROUTE = re.compile(r"(/[\w.:@~-]+)+")  # no more: it becomes a line of nginx's configuration
SETTINGS = SOURCE / "behind_ingress.yaml"
LOG_SETTINGS = "log4j2.xml"


@dataclass(frozen=True)
class Contract:
    """port: that the platform asks. model: the one that answers the routes which name none."""

    port: int
    archives: tuple[Path, ...]
    model: str
    health_routes: tuple[str, ...]
    predict_routes: tuple[str, ...]


@dataclass(frozen=True)
class Places:
    """What server and front of one container are started with."""

    config: Path
    settings: Path
    front: Path


def read_contract(environment: Mapping[str, str], store: Path) -> Contract:
    """Read what the platform says. store: where archives are that are part of the image.

    Raises ConfigError for what is no port or route, and without an archive, or a model to choose.
    """
    archives = find_archives(environment, store)
    model = choose_model(environment, [open_archive(path).identity[0] for path in archives])
    health = _routes(environment, HEALTH_ROUTES, VERTEX_HEALTH)
    # The front has this one itself, and nginx would send it to itself without end.
    predict = tuple(
        route for route in _routes(environment, PREDICT_ROUTES, VERTEX_PREDICT) if route != own_route(model)
    )
    both = sorted({*health} & {*predict, own_route(model)})
    if both:
        raise ConfigError(f"{VERTEX_HEALTH}: {both[0]} is a route of predictions; choose another, such as /ping")
    return Contract(read_port(environment), archives, model, health, predict)


def own_route(model: str) -> str:
    return f"/predictions/{model}"


def read_port(environment: Mapping[str, str]) -> int:
    name = next((name for name in PORT_VARIABLES if environment.get(name)), None)
    if name is None:
        return DEFAULT_PORT
    port = environment[name]
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 1 << 16:
        raise ConfigError(f"{name}: expected a port, got {port!r}")
    return int(port)


def find_archives(environment: Mapping[str, str], store: Path) -> tuple[Path, ...]:
    """Return those that the platform brought, else those of the image. Hidden files are none: macOS packs ._X.mar."""
    brought = [Path(environment[AZURE_MODELS])] if environment.get(AZURE_MODELS) else [SAGEMAKER_MODELS]
    for folder in (*brought, store):
        found = tuple(path for path in sorted(folder.rglob("*.mar")) if _is_shown(path.relative_to(folder)))
        names = [path.name for path in found]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(f"{folder}: two archives are called {twice[0]}; keep one")
        if found:
            return found
    looked = f"no archive (*.mar) in {brought[0]} or {store}"
    if environment.get(VERTEX_MODELS):
        raise ConfigError(f"{looked}; nothing is fetched from {VERTEX_MODELS}, so put archives into the image")
    raise ConfigError(f"{looked}; mount a folder with one there, or put it into the image")


def _is_shown(path: Path) -> bool:
    return not any(part.startswith(".") for part in path.parts)


def choose_model(environment: Mapping[str, str], names: list[str]) -> str:
    named = environment.get(MODEL_VARIABLE) or None
    if named is None and len(set(names)) == 1:
        return names[0]
    if named not in names:
        known = ", ".join(sorted(set(names)))
        raise ConfigError(f"{MODEL_VARIABLE}: expected the model that answers, one of {known}; got {named!r}")
    return named


def write_places(contract: Contract, base: Path, state: Path) -> Places:
    """Write what server and front read, into the state folder. base: settings, all but the addresses."""
    folder, front = state / "cloud", state / "front"
    places = Places(folder / "config.properties", folder / "front.yaml", front)
    store = folder / "model_store"
    if store.is_dir():  # of an earlier start
        shutil.rmtree(store)
    store.mkdir(mode=0o700, parents=True)
    link_archives(contract.archives, store)
    _write_properties(places.config, base, state, contract.port)
    settings = {**read_yaml(SETTINGS), "listen": f"0.0.0.0:{contract.port}"}
    places.settings.write_text(yaml.safe_dump(settings), encoding="utf-8")
    (front / "local").mkdir(mode=0o700, parents=True, exist_ok=True)
    metrics = read_properties(read_text(places.config))[METRICS_KEY]
    (front / "local" / "cloud.conf").write_text(format_routes(contract, int(metrics)), encoding="utf-8")
    return places


def format_routes(contract: Contract, metrics: int) -> str:
    """Return nginx's locations. Health is what the exporter says of workers and their golden predictions."""
    lines = []
    for route in contract.health_routes:
        lines += [
            f"location = {route} {{",
            "    limit_req zone=probes burst=40 nodelay;",
            "    if ($request_method !~ ^(GET|HEAD)$) { return 405; }",
            f"    proxy_pass http://{LOOPBACK}:{metrics}/ready;",
            "    proxy_pass_request_body off;",
            '    proxy_set_header Content-Length "";',
            '    proxy_set_header Connection "";',
            "    proxy_read_timeout 2s;  # SageMaker waits no longer",
            "}",
        ]
    for route in contract.predict_routes:
        lines.append(f"location = {route} {{ rewrite ^ {own_route(contract.model)} last; }}")
    return "\n".join(lines) + "\n"


def _routes(environment: Mapping[str, str], always: tuple[str, ...], variable: str) -> tuple[str, ...]:
    route = environment.get(variable)
    if not route:
        return always
    if not ROUTE.fullmatch(route):
        raise ConfigError(f"{variable}: expected a path as /predict, got {route!r}")
    return tuple(dict.fromkeys((*always, route)))


def _write_properties(config: Path, base: Path, state: Path, taken: int) -> None:
    text = with_absolute_paths(read_text(base), base.parent)
    properties = read_properties(text)
    values = {"model_store": str(config.parent / "model_store"), STATE_KEY: str(state)}
    values["workflow_store"] = str(base.parent.absolute() / properties.get("workflow_store", "workflow_store"))
    while True:
        own = {**free_addresses(), METRICS_KEY: str(find_free_ports(1)[0])}
        ports = {address.rpartition(":")[2] for address in own.values()}
        if len(ports) == len(own) and str(taken) not in ports:
            break
    config.write_text(with_values(text, {**values, **own, "metrics_host": LOOPBACK}), encoding="utf-8")
    log_settings = base.parent / LOG_SETTINGS
    if log_settings.is_file():
        (config.parent / LOG_SETTINGS).write_bytes(log_settings.read_bytes())
