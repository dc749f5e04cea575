#!/usr/bin/env bash
# Look for known vulnerabilities of the pinned packages: pip-audit asks PyPI.
#
#   bash scripts/audit.sh                all of constraints.txt
#   bash scripts/audit.sh my-pins.txt    another list of name==version
#
# pip-audit gets a temporary environment. Exit status 1 when something is found,
# and when a package could not be asked about: pip-audit alone would skip it.
set -euo pipefail

if [ "${1:-}" = --help ] || [ "${1:-}" = -h ]; then
  sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
  exit 0
fi

pins=$(realpath "${1:-$(dirname "${BASH_SOURCE[0]}")/../constraints.txt}")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1
"$folder/env/bin/pip-audit" --strict --disable-pip --no-deps --progress-spinner off --timeout 15 --requirement "$pins"
