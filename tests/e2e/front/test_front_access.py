"""Who may ask through the front: TLS, keys, certificates of clients."""

import socket
import ssl

import pytest

from e2e.test_requests import OCTETS

from .conftest import Running
from .faults import Upstream

# TLS


def test_tls_is_of_today_and_shows_the_certificate(running: Running) -> None:
    context = ssl.create_default_context(cafile=running.front.certificate)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with context.wrap_socket(socket.create_connection(running.address), server_hostname="localhost") as connection:
        assert (connection.version(), connection.selected_alpn_protocol()) == ("TLSv1.3", "h2")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with context.wrap_socket(socket.create_connection(running.address), server_hostname="localhost") as connection:
        assert connection.version() == "TLSv1.2"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_tls_of_yesterday_is_refused(running: Running) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1  # the client would
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection(running.address) as plain,
        pytest.raises(ssl.SSLError, match="ALERT_PROTOCOL_VERSION"),
    ):
        context.wrap_socket(plain)


# Keys


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"X-Api-Key": ""}, 401),
        ({"X-Api-Key": "wrong"}, 401),
        ({"X-Api-Key": "", "Authorization": "Basic KEY"}, 401),
        ({"X-Api-Key": "", "Authorization": "Bearer KEY"}, 200),
        ({"X-Api-Key": "KEY"}, 200),
    ],
    ids=["none", "wrong", "another scheme", "bearer", "X-Api-Key"],
)
def test_predictions_need_a_key(running: Running, seven: bytes, headers: dict[str, str], status: int) -> None:
    response = running.predict(seven, **{name: value.replace("KEY", running.key) for name, value in headers.items()})
    assert response.status_code == status
    if status == 401:
        assert response.json()["type"] == "UnauthorizedError"
        assert response.headers["WWW-Authenticate"] == "Bearer"


def test_a_client_comes_and_goes_by_command(running: Running, seven: bytes) -> None:
    added = running.command("add-client", "visitor")
    key = added.stdout.strip()
    answer = running.predict(seven, **{"X-Api-Key": key})
    assert (added.returncode, answer.status_code) == (0, 200)
    assert running.line_of(answer)["client"] == "visitor"
    assert running.command("remove-client", "visitor").returncode == 0
    assert running.predict(seven, **{"X-Api-Key": key}).status_code == 401
    again = running.command("remove-client", "visitor")
    assert (again.returncode, "no client 'visitor'" in again.stderr) == (1, True)


def test_secrets_are_for_the_owner_and_in_no_file(running: Running) -> None:
    files = [path for path in running.front.folder.rglob("*") if path.is_file()]
    assert [path for path in files if running.key.encode() in path.read_bytes()] == []
    private = ("clients.map", "certificate.key", "nginx.conf")
    assert [oct((running.front.folder / name).stat().st_mode & 0o777) for name in private] == ["0o600"] * 3
    assert oct(running.front.folder.stat().st_mode & 0o777) == "0o700"


def test_a_certificate_of_the_client_can_be_asked_for(before_upstream: Running, told: Upstream) -> None:
    front, own = before_upstream.front, before_upstream.front.certificate
    local = front.folder / "local" / "clients.conf"
    local.write_text(f'ssl_client_certificate "{own}";\nssl_verify_client on;\n')
    try:
        front.reload()
        without = before_upstream.predict(b"x")
        assert (without.status_code, without.json()["type"]) == (400, "ClientCertificateError")
        response = before_upstream.request(
            "POST", "/predictions/digits", OCTETS, data=b"x", cert=(own, front.certificate_key)
        )
        assert response.status_code == told.status
    finally:
        local.unlink()
        front.reload()
