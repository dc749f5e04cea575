"""The applications that a Serve configuration names by their import paths: a model's, and the ingress's."""

from typing import Any

from ray import serve

from mar_tools.ray_serving.models import DEPLOYMENT, INGRESS
from mar_tools.ray_serving.replica import ModelReplica, Spec

MOST_AT_ONCE = 1000  # requests in an ingress; others wait before it
HEALTH = {"health_check_period_s": 5, "health_check_timeout_s": 30}


def model(args: dict[str, Any]) -> Any:
    """Return the application of an archive. args: the fields of Spec."""
    return serve.deployment(name=DEPLOYMENT, **HEALTH)(ModelReplica).bind(Spec(**args))


def ingress(args: dict[str, Any]) -> Any:
    """Return the application that HTTP reaches. args: the arguments of Ingress."""
    from mar_tools.ray_serving.ingress import Ingress  # which a model's replica must not import: see replica.py

    options = {"max_ongoing_requests": MOST_AT_ONCE, "ray_actor_options": {"num_cpus": 0}}
    return serve.deployment(name=INGRESS, **HEALTH, **options)(Ingress).bind(**args)
