"""Several machines behind one front: their addresses, the groups in which nginx asks them, which are ready."""

import http.client
import ipaddress
import re
import socket
import ssl
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from vision_serving.errors import ConfigError
from vision_serving.validation import StrictModel

READY_PATH = "/v2/health/ready"
TIMEOUT_S = 4.0
MOST = 64
OUT_S = 5  # how long nginx leaves out a machine to which a connection failed


def read_machine_address(text: str) -> str:
    """Return `10.0.0.1:8443` or `[fd00::1]:8443` as nginx names it. Raises ValueError for all else, names too."""
    host, _, port = text.rpartition(":")
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        address = None
    # nginx takes no zone of an IPv6 address, as in fe80::1%eth0.
    if address is None or "%" in host or not re.fullmatch(r"[1-9][0-9]{0,4}", port) or int(port) > 65535:
        raise ValueError(f"expected IP:PORT, as nginx would look up a name at its start alone; got {text[:80]!r}")
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def _require_several(addresses: tuple[str, ...]) -> tuple[str, ...]:
    if not 2 <= len(addresses) <= MOST:
        raise ValueError(f"expected 2 to {MOST} addresses, got {len(addresses)}; one machine needs its own front alone")
    if len(set(addresses)) < len(addresses):
        raise ValueError(f"expected each address once, got {', '.join(addresses)}")
    return addresses


Address = Annotated[str, AfterValidator(read_machine_address)]


class Machines(StrictModel):
    """addresses: of their fronts. certificate: what theirs are signed by. name: in all of their certificates."""

    addresses: Annotated[tuple[Address, ...], AfterValidator(_require_several)]
    certificate: Path
    name: str = Field(pattern=r"^[\w.-]+$")


def describe_groups(addresses: Sequence[str]) -> dict[str, str]:
    """Return the lines of deploy/nginx/fleet/upstreams.conf that depend on the machines, by placeholder."""
    remembered = [f"server {address} max_fails=1 fail_timeout={OUT_S}s;" for address in addresses]
    plain = [f"server {address} max_fails=0;" for address in addresses]
    groups = [_describe_group("machines", remembered)]
    for number, server in enumerate(plain, 1):
        groups.append(_describe_group(f"machine_{number}", [server]))
        groups.append(_describe_group(f"all_but_{number}", [other for other in plain if other != server]))
    elsewhere = [f'"~(^|[ ,]){re.escape(address)}$" all_but_{number};' for number, address in enumerate(addresses, 1)]
    return {
        "groups": "\n".join(groups),
        "servers_again": _indent(plain),
        "elsewhere": _indent(elsewhere),
        "machine_count": str(len(addresses)),
    }


def _describe_group(name: str, servers: Sequence[str]) -> str:
    lines = [f"zone {name} 64k;", "least_conn;", *servers, "keepalive 64;"]
    return f"    upstream {name} {{\n{_indent(lines)}\n    }}"


def _indent(lines: Sequence[str]) -> str:
    return "\n".join(f"        {line}" for line in lines)


def ask_machines(machines: Machines, certificate: Path, path_prefix: str) -> dict[str, str]:
    """Return of each address whether its front is "ready" or "not ready", or why it does not answer.

    Raises ConfigError where `certificate` holds none.
    """
    try:
        context = ssl.create_default_context(cafile=str(certificate))
    except OSError as error:
        advice = "machines.certificate is the file with what the machines' certificates are signed by"
        raise ConfigError(f"{certificate}: expected certificates in PEM; {advice}") from error

    def ask(address: str) -> str:
        host, _, port = address.rpartition(":")
        connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=TIMEOUT_S)
        try:
            plain = socket.create_connection((host.strip("[]"), int(port)), TIMEOUT_S)
            connection.sock = context.wrap_socket(plain, server_hostname=machines.name)
            connection.request("GET", path_prefix + READY_PATH)
            status = connection.getresponse().status
        except ssl.SSLCertVerificationError as error:
            wanted = f"expected one for {machines.name} that {certificate.name} has signed"
            return f"its certificate is refused ({error.verify_message}); {wanted}"
        except (OSError, http.client.HTTPException) as error:
            return f"no answer: {getattr(error, 'strerror', None) or error}"
        finally:
            connection.close()
        return {200: "ready", 503: "not ready"}.get(status, f"answers {status}")

    with ThreadPoolExecutor(len(machines.addresses)) as pool:
        return dict(zip(machines.addresses, pool.map(ask, machines.addresses), strict=True))
