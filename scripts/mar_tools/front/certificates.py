"""A certificate for a first try, signed by itself."""

import shutil
import subprocess
from pathlib import Path

from mar_tools.front.nginx import NginxError

CERTIFICATE_DAYS = 365


def make_certificate(certificate: Path, key: Path, names: tuple[str, ...]) -> None:
    """Write one for these names, and its key for the owner alone. Raises NginxError."""
    openssl = shutil.which("openssl")
    if openssl is None:
        raise NginxError("no certificate is given, and openssl, which would make one, is missing: apt install openssl")
    alternatives = ",".join(f"{'IP' if _is_address(name) else 'DNS'}:{name}" for name in names)
    command = [
        openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-days", str(CERTIFICATE_DAYS), "-subj", f"/CN={names[0]}", "-addext", f"subjectAltName={alternatives}",
        "-keyout", str(key), "-out", str(certificate),
    ]  # fmt: skip
    key.touch(mode=0o600)
    finished = subprocess.run(command, capture_output=True, text=True)
    if finished.returncode != 0:
        raise NginxError(f"openssl makes no certificate for {list(names)}: {finished.stderr.strip()[-300:]}")


def _is_address(name: str) -> bool:
    return ":" in name or name.replace(".", "").isdigit()
