"""Which route a path is: those of TorchServe that predict or explain, and those that our front answers."""

import re
from dataclasses import dataclass

NAME = r"(?P<model>[\w.-]+)"
VERSION = r"(?P<version>[\w.-]+)"
ASKING = "GET, HEAD"
SENDING = "POST, PUT"

# A path, and what is done there. The first that fits counts.
ROUTES = (
    (rf"/predictions/{NAME}(?:/{VERSION})?", "predict"),
    (rf"/explanations/{NAME}(?:/{VERSION})?", "explain"),
    (rf"/v1/models/{NAME}:predict", "predict"),
    (rf"/v1/models/{NAME}:explain", "explain"),
    (rf"/v2/models/{NAME}(?::{VERSION})?/infer", "predict"),
    (rf"/v2/models/{NAME}/versions/{VERSION}/infer", "predict"),
    (rf"/v2/models/{NAME}/explain", "explain"),
    (r"/invocations", "predict"),
    (r"/ping", "ping"),
    (r"/-/healthz", "healthz"),
    (r"/v2/health/live", "live"),
    (r"/v2/health/ready", "ready"),
    (r"/v2", "server"),
    (rf"/v2/models/{NAME}(?:/versions/{VERSION})?", "metadata"),
    (rf"/v2/models/{NAME}(?:/versions/{VERSION})?/ready", "model_ready"),
    (r"/v1/models", "names"),
    (rf"/v1/models/{NAME}", "model_ready"),
    (r"/models", "models"),
    (rf"/models/{NAME}(?:/{VERSION})?", "describe"),
)
PATTERNS = tuple((re.compile(pattern, re.ASCII), action) for pattern, action in ROUTES)
PREDICTING = ("predict", "explain")
OPEN = ("ping", "healthz", "live", "ready")  # without a key: a probe has none


@dataclass(frozen=True)
class Route:
    """action: of ROUTES. model: empty where the path names none. version: None for the default one."""

    action: str
    model: str = ""
    version: str | None = None

    @property
    def predicts(self) -> bool:
        return self.action in PREDICTING

    @property
    def methods(self) -> str:
        """Return the methods that it takes. TorchServe lets a GET through to the model, which finds no image in it."""
        return f"{SENDING}, GET" if self.predicts else ASKING


def find_route(path: str) -> Route | None:
    for pattern, action in PATTERNS:
        found = pattern.fullmatch(path)
        if found is not None:
            named = found.groupdict()
            return Route(action, named.get("model", ""), named.get("version"))
    return None
