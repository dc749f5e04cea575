"""Sign archives, so that a server can refuse what nobody vouches for.

    python scripts/sign_archive.py keygen keys/release.key
    python scripts/sign_archive.py keygen keys/release.key --passphrase
    python scripts/sign_archive.py sign digits.mar --key keys/release.key
    python scripts/sign_archive.py verify digits.mar --public-key keys/release.pub

`keygen` writes a private key, for its owner alone, and a public one beside it (.pub). `sign` verifies the archive and
writes X.mar.sig beside it. The passphrase of an encrypted key is asked for, or taken from VISION_SIGNING_PASSPHRASE.
config.properties says whose signatures a server asks for: vision_trusted_keys=keys/*.pub
"""

import argparse
import os
import sys
from collections.abc import Callable
from getpass import getpass
from pathlib import Path

from mar_tools.archives.archive import open_archive
from mar_tools.archives.checks import verify_archive
from mar_tools.archives.signing import (
    check_signature,
    is_encrypted,
    key_id,
    read_private_key,
    read_public_key,
    read_public_keys,
    sign_archive,
    write_key_pair,
)
from mar_tools.command_line import new_parser, print_json, run
from vision_serving.errors import ConfigError

PASSPHRASE = "VISION_SIGNING_PASSPHRASE"


def main() -> None:
    parser = new_parser(__doc__)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    keygen = actions.add_parser("keygen", help="write a new pair of keys")
    keygen.add_argument("key", type=Path, help="the private key; the public one is written beside it as .pub")
    keygen.add_argument("--passphrase", action="store_true", help="encrypt the private key")
    sign = actions.add_parser("sign", help="write X.mar.sig beside X.mar")
    sign.add_argument("archive", type=Path)
    sign.add_argument("--key", type=Path, required=True, help="the private key")
    verify = actions.add_parser("verify", help="exit status 0 if one of these keys signed exactly this archive")
    verify.add_argument("archive", type=Path)
    verify.add_argument("--public-key", type=Path, nargs="+", required=True)
    for action in actions.choices.values():
        action.add_argument("--json", action="store_true", help="print the result as JSON")
    given = parser.parse_args()
    result = ACTIONS[given.action](given)
    if given.json:
        print_json(result)
    else:
        print("\n".join(f"{key}: {value}" for key, value in result.items()))


def keygen(given: argparse.Namespace) -> dict[str, str]:
    public = write_key_pair(given.key, choose_passphrase() if given.passphrase else None)
    return {"private key": str(given.key), "public key": str(public), "key id": key_id(read_public_key(public))}


def sign(given: argparse.Namespace) -> dict[str, str]:
    archive = verify_archive(given.archive)
    passphrase = ask_passphrase(f"passphrase of {given.key}: ") if is_encrypted(given.key) else None
    key = read_private_key(given.key, passphrase)
    return {"signature": str(sign_archive(archive, key)), "key id": key_id(key.public_key()), "sha256": archive.sha256}


def verify(given: argparse.Namespace) -> dict[str, str]:
    found = check_signature(open_archive(given.archive), read_public_keys(given.public_key))
    return {"model": f"{found.model} {found.version}", "signed by": found.key_id, "sha256": found.sha256}


def choose_passphrase() -> bytes:
    """Ask for it twice: nobody can use a key whose passphrase was mistyped."""
    passphrase = ask_passphrase("passphrase of the new key: ")
    if not passphrase:
        raise ConfigError("the passphrase is empty; leave out --passphrase for a key that is not encrypted")
    if sys.stdin.isatty() and ask_passphrase("the same again: ") != passphrase:
        raise ConfigError("that was not the same passphrase; nothing was written")
    return passphrase


def ask_passphrase(prompt: str) -> bytes:
    """Raises ConfigError where nobody can be asked."""
    try:
        return (os.environ.get(PASSPHRASE) or getpass(prompt)).encode()
    except EOFError as error:
        raise ConfigError(f"no terminal to ask for the passphrase; give it in {PASSPHRASE}") from error


ACTIONS: dict[str, Callable[[argparse.Namespace], dict[str, str]]] = {"keygen": keygen, "sign": sign, "verify": verify}


if __name__ == "__main__":
    run(main)
