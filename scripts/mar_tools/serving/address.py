"""Where the server of a config.properties listens, and where it writes; what no command could follow is refused."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vision_serving.errors import ConfigError
from vision_serving.worker.server_settings import read_properties, read_text, state_folder

ADDRESS = re.compile(r"https?://([^\[\]:/?#@\s]+):(\d{1,5})/?")
VARIABLE = re.compile(r"\$\$[^$]+\$\$")  # TorchServe puts that of the environment there


@dataclass(frozen=True)
class ServerAddress:
    """Where a server listens (metrics: None for nowhere), and where it wrote its tokens (None: it asks for none)."""

    inference: str
    management: str
    key_file: Path | None
    metrics: str | None = "http://127.0.0.1:8082"


def read_address(config: Path) -> ServerAddress:
    """Read a `config.properties`. Raises ConfigError when there is none, or an address in it is none."""
    values = read_properties(read_text(config))
    refuse_variables(config, values)
    for key in ("inference_address", "management_address", "metrics_address"):
        found = ADDRESS.fullmatch(values.get(key, "http://127.0.0.1:8080"))
        if found is None or not 0 < int(found[2]) < 1 << 16:
            hint = " (TorchServe takes no IPv6)" if "[" in values[key] else ""
            raise ConfigError(f"{config}: {key}: expected http://HOST:PORT{hint}, got {values[key]!r}")
    tokens = values.get("disable_token_authorization", "false").lower() != "true"
    metrics = values.get("enable_metrics_api", "true").lower() != "false"
    return ServerAddress(
        inference=values.get("inference_address", "http://127.0.0.1:8080"),
        management=values.get("management_address", "http://127.0.0.1:8081"),
        key_file=state_folder(config) / "key_file.json" if tokens else None,
        metrics=values.get("metrics_address", ServerAddress.metrics) if metrics else None,
    )


def refuse_variables(config: Path, values: Mapping[str, str]) -> None:
    """Refuse what TorchServe would take from its environment, which no other command and no worker sees."""
    if values.get("enable_envvars_config", "false").lower() == "true":
        named = ", ".join(sorted(name for name in os.environ if name.startswith("TS_"))) or "any TS_ variable"
        raise ConfigError(f"{config}: enable_envvars_config: remove it, and write here what {named} would set")
    for key, value in values.items():
        if VARIABLE.search(value):
            raise ConfigError(f"{config}: {key}: expected a value, got a variable of the environment, {value!r}")
