"""The files of deploy/nginx, filled in: those of a front before TorchServe, or before several machines."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mar_tools.command_line import ROOT
from mar_tools.front.machines import Machines, describe_groups

SOURCE = ROOT / "deploy" / "nginx"
PLACEHOLDER = re.compile(r"@\{(\w+)\}")
TRIES, EXTRA_S = 2, 10  # a machine's front asks its TorchServe so often: it says itself what was wrong


def fill(template: str, values: Mapping[str, Any]) -> str:
    """Return a file of deploy/nginx with its placeholders replaced."""
    text = (SOURCE / template).read_text(encoding="utf-8")
    return PLACEHOLDER.sub(lambda found: str(values[found[1]]), text)


def fill_routes(values: Mapping[str, Any]) -> dict[str, str]:
    """Return what nginx.conf and playground.conf lack for a front before the TorchServe of this machine."""
    return {
        "upstreams": fill("torchserve/upstreams.conf", values),
        "routes": fill("torchserve/routes.conf", values),
        "describe": "front.describe",
        "more_of_the_log": "",
    }


def fill_routes_to_machines(machines: Machines, certificate: Path, values: Mapping[str, Any]) -> dict[str, str]:
    """Return the same for a front before those of several machines. certificate: what theirs are signed by."""
    own = {
        **values,
        **describe_groups(machines.addresses),
        "machines_certificate": certificate,
        "machines_name": machines.name,
        "machine_timeout_s": TRIES * values["answer_timeout_s"] + EXTRA_S,
    }
    own["tls"] = fill("fleet/tls.conf", own)
    own["to_a_machine"] = fill("fleet/to_a_machine.conf", own)
    return {
        "upstreams": fill("fleet/upstreams.conf", own),
        "routes": fill("fleet/routes.conf", own),
        "describe": "fleet.pass",
        "more_of_the_log": ',"machines":"$upstream_addr"',
    }
