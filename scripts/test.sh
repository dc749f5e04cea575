#!/usr/bin/env bash
# Check lint, types and tests. A fresh machine gets an environment first.
#
#   bash scripts/test.sh                     those of the product
#   bash scripts/test.sh --ray               those that need Ray
#   bash scripts/test.sh --lab               those of lab/; all generated examples
#   bash scripts/test.sh tests/handlers -x   what follows goes to pytest
#
# Needs Python 3.10 to 3.13 with venv. Java comes with a package if there is none.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [ "${1:-}" = --help ] || [ "${1:-}" = -h ]; then
  sed -n '2,9s/^# \{0,1\}//p' scripts/test.sh
  exit 0
fi

# shellcheck source=scripts/install.sh
source scripts/install.sh

# Three processes on two cores: while one waits for a server, two compute. They and the hundreds of processes that they
# start keep what they compile of our files, whatever the shell says of that.
run_tests() {
  PYTHONDONTWRITEBYTECODE='' python -m pytest -n 3 --dist loadfile --no-loadscope-reorder --durations=20 "$@"
}

test_product() {
  run_tests --ignore=tests/lab -m "not lab and not ray" "$@"
}

test_ray() {
  run_tests -m ray "$@"
}

# Generated tests of the product take a part of their examples in the product's run, and all of them here.
test_lab() {
  if [ "$#" -gt 0 ]; then
    EXAMPLES=1 run_tests -o testpaths=tests/lab "$@"
  else
    EXAMPLES=1 run_tests -m "(hypothesis or lab) and not ray"
  fi
}

if [ "${1:-}" = --lab ]; then
  shift
  install_requirements requirements/dev.txt requirements/lab.txt
  tests=test_lab types=(lab tests/lab)
elif [ "${1:-}" = --ray ]; then
  shift
  install_requirements requirements/dev.txt requirements/ray.txt
  tests=test_ray types=(scripts/mar_tools/ray_serving)
else
  install_requirements requirements/dev.txt
  tests=test_product types=(handlers scripts client examples deploy/grafana tests --exclude '^tests/lab/')
fi

echo "== ruff"
ruff check handlers scripts client examples deploy/grafana lab tests
ruff format --check --quiet handlers scripts client examples deploy/grafana lab tests
echo "== pytest; mypy beside it, which takes one core for half a minute, and is told at the end"
output=$(mktemp)
trap 'kill "${checked:-}" 2>/dev/null || true; rm -f "$output"' EXIT
nice mypy "${types[@]}" >"$output" 2>&1 &
checked=$!
status=0
"$tests" "$@" || status=$?
echo "== mypy"
wait "$checked" || status=1
cat "$output"
exit "$status"
