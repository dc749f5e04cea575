# Sourced by lab/measure_performance.sh and lab/gpu/run.sh, from the root of the project: where things lie, and how a model is served and measured.
# shellcheck shell=bash

exports=${EXPORTS:-lab/exports} config=${CONFIG:-lab/config.properties} results=${RESULTS:-lab/results/performance}
store=$(dirname "$config")/model_store
load=(--rounds "${ROUNDS:-5}" --round-s "${ROUND_S:-5}")

stop() { python scripts/serve_models.py stop --config "$config" >/dev/null; }
trap stop EXIT

build() { # RECIPE ARGUMENTS...: into an export folder and the store
  python scripts/build_model.py "$1" --exports "$exports" --model-store "$store" "${@:2}"
}

serve() { # EXPORT...: these models alone
  stop
  rm -f "$store"/*.mar
  for export in "$@"; do python scripts/package_model.py "$export" --model-store "$store"; done
  python scripts/serve_models.py start --config "$config"
}

vary() { # EXPRESSION: serve with a copy of the settings that sed has changed; only in a subshell, whose end removes it
  local varied=${config%.properties}-varied.properties
  sed "$1" "$config" >"$varied"
  config=$varied
  trap 'stop; rm "$config"' EXIT
}

measure() { # NAME MODEL ARGUMENTS...: beside other servers with --compare
  echo "== $1"
  python lab/compare_servers.py --config "$config" "${load[@]}" "${@:2}" --json "$results/$1.json" --plots "$results/plots/$1"
}
