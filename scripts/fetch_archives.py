"""Fetch archives into a model store, if trusted keys have signed all of them. Else the store gets nothing.

    python scripts/fetch_archives.py --public-key keys/release.pub --into model_store \\
        https://models.example.com/digits.mar \\
        https://models.example.com/digits.mar.sig
    python scripts/fetch_archives.py --public-key keys/release.pub --into model_store --list addresses.txt
    python scripts/fetch_archives.py --public-key keys/release.pub --into model_store /mnt/models

An address is a URL, a file, or a folder with archives. Each archive needs its signature, which sign_archive.py writes.
A list has an address a line, which may be an object store's presigned one: no message shows what follows a `?`.
Kubernetes runs this before the server starts: docs/operate/kubernetes.md.
"""

import argparse
from pathlib import Path

from mar_tools.archives.fetching import fetch_archives
from mar_tools.archives.signing import read_public_keys
from mar_tools.command_line import new_parser, print_json, run
from vision_serving.validation import read_text


def main() -> None:
    given = parse_arguments()
    listed = read_list(given.list) if given.list else []
    found = fetch_archives([*given.addresses, *listed], read_public_keys(given.public_key), given.into)
    if given.json:
        print_json([signature.model_dump() for signature in found])
        return
    for signature in found:
        print(f"{signature.model} {signature.version}: signed by {signature.key_id}, {signature.sha256}")


def read_list(path: Path) -> list[str]:
    lines = map(str.strip, read_text(path).splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def parse_arguments() -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("addresses", nargs="*", metavar="ADDRESS", help="of an archive, or of its signature")
    parser.add_argument("--public-key", type=Path, nargs="+", required=True, help="one of these has signed each")
    parser.add_argument("--into", type=Path, required=True, metavar="STORE", help="the folder that gets them")
    parser.add_argument("--list", type=Path, metavar="FILE", help="further addresses, one a line; # begins a comment")
    parser.add_argument("--json", action="store_true", help="print the signatures as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
