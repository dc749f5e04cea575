"""A configuration of Ray Serve, deployed: what is new becomes the default once it has answered, then the old goes."""

from dataclasses import dataclass
from typing import Any

from mar_tools.cluster.connecting import ClusterError
from mar_tools.command_line import Announce
from mar_tools.ray_serving.configuration import ServePlan
from mar_tools.ray_serving.names import INGRESS, INGRESS_APPLICATION, SHELF_APPLICATION
from mar_tools.serving.ports import find_obstacle
from mar_tools.terminal import print_line
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
    """Start Serve's controller in the cluster that this process is connected to, or find it there.

    is_new: whether the cluster is this command's own, so that nobody listens yet. Raises ClusterError.
    """
    from ray import serve

    obstacle = find_obstacle(*plan.listen) if is_new else None
    if obstacle is not None:
        raise ClusterError(f"port {plan.listen[1]} {obstacle}; stop it, or give another address by --listen")
    serve.start(proxy_location=plan.document["proxy_location"])


def deploy(plan: ServePlan, timeout_s: float, announce: Announce) -> list[Deployed]:
    """Deploy a plan, and return how each version is. Versions that it leaves out go when the others have answered.

    What has not answered in time is told with its reason, and what served before goes on.
    """
    new = plan.document["applications"]
    first = keep_running(new, list_running())
    _apply(plan, first)
    wait_until(lambda: _is_settled(plan, announce), timeout_s, POLL_S)
    found = [describe(plan, deployment.application) for deployment in plan.deployments]
    if first != new and all(each.problem is None for each in found):
        _apply(plan, new)
    return found


def keep_running(new: list[dict[str, Any]], running: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what is new, with what runs and is not named any more: applications, and archives on the shelf."""
    archives = _find_archives(running)
    kept = []
    for application in new:
        if application["name"] == SHELF_APPLICATION:
            (deployment,) = application["deployments"]
            known = {"archives": {**archives, **_find_archives([application])}}
            application = {**application, "deployments": [{**deployment, "user_config": known}]}
        kept.append(application)
    names = {application["name"] for application in new}
    return kept + [application for application in running if application["name"] not in names]


def _find_archives(applications: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the archives on the shelf."""
    shelves = [each for each in applications if each["name"] == SHELF_APPLICATION]
    return {name: spec for each in shelves for name, spec in each["deployments"][0]["user_config"]["archives"].items()}


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
    if deployment.is_on_demand:
        return Deployed(deployment.model, deployment.version, 0, find_problems().get(application))
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
    waiting = [name for name in sorted(names - {INGRESS_APPLICATION}) if states.get(name) not in ("RUNNING", *FAILED)]
    if waiting or states.get(INGRESS_APPLICATION) != "RUNNING":
        announce(f"starting {', '.join(waiting) or 'the ingress'}")
        return False
    return any(state in FAILED for state in states.values()) or is_complete() or bool(find_problems())


def is_complete() -> bool:
    """Return whether each ingress serves all that is wanted."""
    return all(_find_ingresses().broadcast("is_complete").results(timeout_s=ANSWER_S))


def find_problems() -> dict[str, str]:
    """Return why archives could not be loaded on demand, by application."""
    told = _find_ingresses().broadcast("problems").results(timeout_s=ANSWER_S)
    return {name: problem for problems in told for name, problem in problems.items()}


def drain(timeout_s: float) -> None:
    """Let the ingresses listen no more, and return when what is under way is answered, or the time is over."""
    print_line("answering what is under way; interrupt again to stop at once")
    try:
        _find_ingresses().broadcast("drain").results(timeout_s=timeout_s)
    except Exception as error:  # of whatever kind Serve's are: the command ends all the same
        print_line(f"not all that was under way is answered: {error}")


def _find_ingresses() -> Any:
    from ray import serve

    return serve.get_deployment_handle(INGRESS, INGRESS_APPLICATION)


def _client() -> Any:
    """Return Serve's client: `serve deploy` does the same over HTTP, and only where a dashboard runs."""
    from ray.serve.context import _get_global_client

    return _get_global_client()
