"""The applications that a Serve configuration names by their import paths: a model's, and the ingress's."""

from typing import Any

from ray import serve

from mar_tools.ray_serving.names import DEPLOYMENT, INGRESS, SHELF
from mar_tools.ray_serving.replica import UNDER_WAY, ModelReplica, Spec
from mar_tools.ray_serving.shelf import Shelf

HEALTH = {"health_check_period_s": 5, "health_check_timeout_s": 30}


def drained(kind: type) -> type:
    """Return a deployment's class that Serve lets answer what is under way: it awaits `__del__` before it ends one."""

    class Drained(kind):  # type: ignore[misc]
        async def __del__(self) -> None:
            await self.drain()

    return Drained


def model(args: dict[str, Any]) -> Any:
    """Return the application of an archive. args: the fields of Spec."""
    return serve.deployment(name=DEPLOYMENT, **HEALTH)(drained(ModelReplica)).bind(Spec(**args))


def shelf(args: dict[str, Any]) -> Any:
    """Return the application that loads archives on demand. args: the arguments of Shelf."""
    return serve.deployment(name=SHELF, **HEALTH)(drained(Shelf)).bind(**args)


def ingress(args: dict[str, Any]) -> Any:
    """Return the application that HTTP reaches. args: the arguments of Ingress."""
    from mar_tools.ray_serving.ingress import Ingress  # which a model's replica must not import: see replica.py

    options = {"ray_actor_options": {"num_cpus": 0}}
    return serve.deployment(name=INGRESS, **HEALTH, **options)(drained(Ingress)).bind(**args)


def scale(context: Any) -> tuple[float, dict[str, Any]]:
    """Return how many replicas are wanted: so many that each has target_ongoing_requests of those under way."""
    reported = context.aggregated_metrics.get(UNDER_WAY, {})
    if not reported:
        return context.target_num_replicas, {}
    # Those that have not reported yet have as many as the others, not none.
    under_way = sum(reported.values()) / len(reported) * context.current_num_replicas
    return under_way / context.config.get_target_ongoing_requests(), {}
