#!/usr/bin/env bash
# Known vulnerabilities of the pinned packages, by pip-audit, which asks the Python package index for each of them.
#
#   bash scripts/audit.sh                      all of constraints.txt
#   bash scripts/audit.sh my-pins.txt          another list of name==version
#
# pip-audit lives in a temporary environment of its own. Exit status 1 when something is found, and (--strict) when a package
# could not be asked about: pip-audit alone would skip it and say that nothing was found.
set -euo pipefail
pins=$(realpath "${1:-$(dirname "${BASH_SOURCE[0]}")/../constraints.txt}")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1
"$folder/env/bin/pip-audit" --strict --disable-pip --no-deps --progress-spinner off --timeout 15 --requirement "$pins"
