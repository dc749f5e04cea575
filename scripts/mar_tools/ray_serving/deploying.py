"""A configuration of Ray Serve, deployed: what is new becomes the default once it has answered, then the old goes."""

import time
from dataclasses import dataclass
from typing import Any

from mar_tools.cluster.connecting import ClusterError
from mar_tools.command_line import Announce
from mar_tools.ray_serving.configuration import INGRESS_APPLICATION, ServePlan
from mar_tools.ray_serving.models import INGRESS
from mar_tools.serving.ports import find_obstacle
from mar_tools.waiting import wait_until

POLL_S = 0.5
ANSWER_S = 10.0
FAILED = ("DEPLOY_FAILED", "UNHEALTHY")


@dataclass(frozen=True)
class Deployed:
    """A version of a model. problem: why it is not served, None where it is."""

    model: str
    version: str
    replicas: int
    problem: str | None


def start_serve(plan: ServePlan, is_new: bool) -> None:
    """Start Serve's controller and HTTP proxy in the cluster that this process is connected to, or find them there.

    is_new: whether the cluster is this command's own, so that nobody listens yet. Raises ClusterError.
    """
    from ray import serve

    options = plan.document["http_options"]
    obstacle = find_obstacle(options["host"], options["port"]) if is_new else None
    if obstacle is not None:
        raise ClusterError(f"port {options['port']} {obstacle}; stop it, or give another address by --listen")
    serve.start(proxy_location=plan.document["proxy_location"], http_options=options)


def deploy(plan: ServePlan, timeout_s: float, announce: Announce) -> list[Deployed]:
    """Deploy a plan, and return how each version is. Versions that it leaves out go when the others have answered.

    What has not answered in time is told with its reason, and what served before goes on.
    """
    new = plan.document["applications"]
    names = {application["name"] for application in new}
    old = [application for application in list_running() if application["name"] not in names]
    _apply(plan, new + old)
    deadline = time.monotonic() + timeout_s
    wait_until(lambda: _is_settled(plan, announce), max(0.0, deadline - time.monotonic()), POLL_S)
    found = [describe(plan, application["name"]) for application in new if application["name"] != INGRESS_APPLICATION]
    if old and all(each.problem is None for each in found):
        _apply(plan, new)
    return found


def list_running() -> list[dict[str, Any]]:
    """Return the configurations of the applications that were deployed before, and did not fail."""
    details = _client().get_serve_details()["applications"].values()
    return [each["deployed_app_config"] for each in details if each["deployed_app_config"] and not _failed(each)]


def _failed(application: dict[str, Any]) -> bool:
    return str(getattr(application["status"], "value", application["status"])) in FAILED


def describe(plan: ServePlan, application: str) -> Deployed:
    """Return how the application of a version is."""
    from ray import serve

    (deployment,) = (each for each in plan.deployments if each.application == application)
    found = serve.status().applications.get(application)
    running = sum(each.replica_states.get("RUNNING", 0) for each in found.deployments.values()) if found else 0
    state = str(found.status.value) if found else "NOT_STARTED"
    problem = None if state == "RUNNING" and running else _tell(state, found)
    return Deployed(deployment.model, deployment.version, running, problem)


def _tell(state: str, found: Any) -> str:
    """Return why an application does not serve: the last line of what its replica said."""
    said = [found.message, *(each.message for each in found.deployments.values())] if found else []
    lines = [line.strip() for text in said for line in str(text).splitlines() if "Error" in line]
    return lines[-1].partition("RuntimeError: ")[2] or lines[-1] if lines else f"has not answered in time ({state})"


def _apply(plan: ServePlan, applications: list[dict[str, Any]]) -> None:
    from ray.serve.schema import ServeDeploySchema

    _client().deploy_apps(ServeDeploySchema.model_validate({**plan.document, "applications": applications}))


def _is_settled(plan: ServePlan, announce: Announce) -> bool:
    """Return whether all is served, or all that is not has failed."""
    from ray import serve

    names = {application["name"] for application in plan.document["applications"]}
    found = {name: each for name, each in serve.status().applications.items() if name in names}
    states = {name: str(each.status.value) for name, each in found.items()}
    waiting = [
        each.application for each in plan.deployments if states.get(each.application) not in ("RUNNING", *FAILED)
    ]
    if waiting or states.get(INGRESS_APPLICATION) != "RUNNING":
        announce(f"starting {', '.join(waiting) or 'the ingress'}")
        return False
    return any(state in FAILED for state in states.values()) or is_complete()


def is_complete() -> bool:
    """Return whether the ingress serves all that is wanted."""
    from ray import serve

    handle = serve.get_deployment_handle(INGRESS, INGRESS_APPLICATION)
    return bool(handle.is_complete.remote().result(timeout_s=ANSWER_S))


def _client() -> Any:
    """Return Serve's client: `serve deploy` does the same over HTTP, and only where a dashboard runs."""
    from ray.serve.context import _get_global_client

    return _get_global_client()
