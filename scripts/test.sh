#!/usr/bin/env bash
# On a fresh machine: install everything, then lint, types and all tests.
#
#   bash scripts/test.sh                     all of it
#   bash scripts/test.sh tests/handlers -x   what follows goes to pytest
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/install.sh
source scripts/install.sh

install_requirements requirements/dev.txt
sources=(handlers scripts client examples lab tests)
echo "== ruff"
ruff check "${sources[@]}"
ruff format --check --quiet "${sources[@]}"
echo "== pytest; mypy beside it, which takes one core for half a minute, and is told at the end"
types=$(mktemp)
trap 'kill "${checked:-}" 2>/dev/null || true; rm -f "$types"' EXIT
nice mypy "${sources[@]}" >"$types" 2>&1 &
checked=$!
status=0
python -m pytest -n 2 --dist loadfile --no-loadscope-reorder "$@" || status=$?
echo "== mypy"
wait "$checked" || status=1
cat "$types"
exit "$status"
