"""Until what is new has answered, what runs goes on: applications, and archives that are loaded on demand."""

from typing import Any

from mar_tools.ray_serving.deploying import keep_running
from mar_tools.ray_serving.names import INGRESS_APPLICATION, SHELF, SHELF_APPLICATION

INGRESS = {"name": INGRESS_APPLICATION, "deployments": []}


def model(version: str) -> dict[str, Any]:
    return {"name": f"digits-{version}", "deployments": []}


def shelf(**archives: str) -> dict[str, Any]:
    named = {name: {"archive": archive} for name, archive in archives.items()}
    return {"name": SHELF_APPLICATION, "deployments": [{"name": SHELF, "user_config": {"archives": named}}]}


def test_what_runs_and_is_not_named_any_more_is_kept() -> None:
    new = [model("2.0"), INGRESS]
    assert keep_running(new, [model("1.0"), shelf(old="a.mar"), INGRESS]) == [*new, model("1.0"), shelf(old="a.mar")]


def test_archives_on_demand_that_are_not_named_any_more_are_kept_on_the_shelf() -> None:
    new = [shelf(both="new.mar", new="b.mar"), INGRESS]
    kept = keep_running(new, [shelf(old="a.mar", both="old.mar"), INGRESS])
    assert kept == [shelf(old="a.mar", both="new.mar", new="b.mar"), INGRESS]
    assert new == [shelf(both="new.mar", new="b.mar"), INGRESS]


def test_where_all_that_runs_is_named_nothing_is_added() -> None:
    new = [model("1.0"), shelf(old="a.mar"), INGRESS]
    assert keep_running(new, new) == new
