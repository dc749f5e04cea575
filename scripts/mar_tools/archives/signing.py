"""Ed25519 signatures beside archives: `X.mar.sig` says whose key vouches for which bytes, as which model and version.

What is signed is a statement of its own form, so that no signature made for something else is one of an archive.
"""

import base64
import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import orjson
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from mar_tools.archives.archive import Archive
from vision_serving.errors import ConfigError
from vision_serving.validation import StrictModel, parse_config

DOMAIN = b"vision-serving archive signature v1\n"
MOST_BYTES = 1 << 16  # of a signature or key file
Keys = Mapping[str, Ed25519PublicKey]  # by their ids


class Signature(StrictModel):
    """The content of a `.sig`. key_id: of the public key; signature: base64, over the statement."""

    algorithm: Literal["ed25519"]
    key_id: str
    model: str
    version: str
    sha256: str
    signature: str

    @property
    def statement(self) -> bytes:
        """Return what is signed."""
        said = {"model": self.model, "sha256": self.sha256, "version": self.version}
        return DOMAIN + orjson.dumps(said, option=orjson.OPT_SORT_KEYS)


def signature_path(archive: Path) -> Path:
    return archive.with_name(f"{archive.name}.sig")


def key_id(key: Ed25519PublicKey) -> str:
    """Return the SHA-256 of the key in its standard encoding."""
    encoded = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return f"sha256:{hashlib.sha256(encoded).hexdigest()}"


def write_key_pair(private: Path, passphrase: bytes | None) -> Path:
    """Write a new private key, for its owner alone, and its public key beside it as `.pub`, whose path it returns.

    Raises ConfigError where either is there already, or both would be one file: a key that is overwritten is lost.
    """
    public = private.with_suffix(".pub")
    if public == private:
        raise ConfigError(f"{private}: the name of the public key; give the private one another ending, such as .key")
    for path in (private, public):
        if path.exists():
            raise ConfigError(f"{path}: exists; a key is never overwritten, so give another name")
    key = Ed25519PrivateKey.generate()
    encryption = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    private.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secret)
    shown = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    public.write_bytes(shown)
    return public


def read_private_key(path: Path, passphrase: bytes | None) -> Ed25519PrivateKey:
    """Raises ConfigError for another kind of key, a wrong passphrase, and a file that others may read."""
    if b"PRIVATE KEY" not in _read_small(path):
        raise ConfigError(f"{path}: no private key; sign_archive.py keygen writes one, and its public key as .pub")
    if path.stat().st_mode & 0o077:
        raise ConfigError(f"{path}: others may read this private key; chmod 600 it, or make a new one")
    try:
        key = serialization.load_pem_private_key(_read_small(path), passphrase)
    except TypeError as error:
        raise ConfigError(f"{path}: {error}; see sign_archive.py --help for the passphrase") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{path}: no private key, or another passphrase") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path}: expected an Ed25519 key; make one with sign_archive.py keygen")
    return key


def is_encrypted(path: Path) -> bool:
    return b"ENCRYPTED" in _read_small(path).partition(b"\n")[0]


def read_public_key(path: Path) -> Ed25519PublicKey:
    """Raises ConfigError."""
    try:
        key = serialization.load_pem_public_key(_read_small(path))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file; expected a public key, as sign_archive.py keygen writes") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{path}: no public key; sign_archive.py keygen writes one as .pub") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(f"{path}: expected an Ed25519 key")
    return key


def read_public_keys(paths: Iterable[Path]) -> dict[str, Ed25519PublicKey]:
    """Read keys by their ids. Raises ConfigError."""
    return {key_id(key): key for key in map(read_public_key, paths)}


def _read_small(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MOST_BYTES)


def sign_archive(archive: Archive, key: Ed25519PrivateKey) -> Path:
    """Write the signature beside the archive, whole or not at all, and return its path."""
    model, version = archive.identity
    unsigned = Signature(
        algorithm="ed25519", key_id=key_id(key.public_key()), model=model, version=version,
        sha256=archive.sha256, signature="",
    )  # fmt: skip
    signed = base64.b64encode(key.sign(unsigned.statement)).decode()
    document = unsigned.model_copy(update={"signature": signed}).model_dump()
    target = signature_path(archive.path)
    temporary = target.with_name(f".{target.name}.tmp")
    temporary.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
    temporary.replace(target)
    return target


def read_signature(archive: Path) -> Signature:
    """Raises ConfigError where there is none, or not one of ours."""
    path = signature_path(archive)
    if not path.is_file():
        raise ConfigError(f"{archive}: not signed (no {path.name}); sign it with sign_archive.py sign")
    if not path.resolve().is_relative_to(path.parent.resolve()):
        raise ConfigError(f"{path}: a link to a file outside its folder; copy the signature there")
    try:
        document = orjson.loads(_read_small(path))
    except orjson.JSONDecodeError as error:
        raise ConfigError(f"{path}: not a signature ({error})") from error
    return parse_config(Signature, document, str(path))


def check_signature(archive: Archive, keys: Keys) -> Signature:
    """Raises ConfigError unless one of these keys vouches for exactly these bytes, as this model and version."""
    found = read_signature(archive.path)
    if found.key_id not in keys:
        raise ConfigError(f"{archive.path}: signed by {found.key_id}, which is none of the trusted keys: {[*keys]}")
    try:
        keys[found.key_id].verify(base64.b64decode(found.signature, validate=True), found.statement)
    except (InvalidSignature, ValueError) as error:  # ValueError: not base64
        raise ConfigError(f"{archive.path}: its signature is not by {found.key_id}; sign it again") from error
    if found.sha256 != archive.sha256:
        raise ConfigError(f"{archive.path}: changed since it was signed as {found.sha256}; it has {archive.sha256}")
    if (found.model, found.version) != archive.identity:
        raise ConfigError(f"{archive.path}: signed as {found.model} {found.version}, and holds {archive.identity}")
    return found
