#!/usr/bin/env bash
# Every number of docs/performance.md: builds the models, serves them one after the other, measures, draws, writes.
#
#   bash benchmarks/run.sh                    everything; about an hour and a half on two cores that do nothing else
#   bash benchmarks/run.sh build              only the archives, which all other steps need
#   bash benchmarks/run.sh resnet50 again     some steps, in this order
#   bash benchmarks/run.sh render             the page, from the results that are there
#
# Steps: build client resnet50 precisions latency mobilenet ssdlite overhead start photos again render
# Results: benchmarks/results/<step>.json, overwritten; RESULTS=folder ROUNDS=1 ROUND_S=1 for a try.
# Needs requirements-benchmark.txt and, for wrk, `apt install wrk`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

exports=benchmarks/exports store=benchmarks/model_store config=benchmarks/config.properties results=${RESULTS:-benchmarks/results}
# shellcheck disable=SC2054
peers=(stock litserve mosec ray bentoml mlserver fastapi pytriton)
load=(--config "$config" --rounds "${ROUNDS:-5}" --round-s "${ROUND_S:-6}")

usage() { sed -n '2,11s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }
stop() { python scripts/serve_models.py stop --config "$config" >/dev/null; }
trap stop EXIT

build_one() { # RECIPE BACKEND PRECISION
  python scripts/build_model.py "$1" --weights "${4:-random}" --backend "$2" --precision "$3" --exports "$exports" --model-store "$store"
}

serve() { # EXPORT: this model alone
  stop
  rm -f "$store"/*.mar
  python scripts/package_model.py "$exports/$1" --model-store "$store"
  python scripts/serve_models.py start --config "$config"
}

measure() { # STEP ARGUMENTS...
  echo "== $1"
  python scripts/benchmark_model.py "${@:2}" "${load[@]}" --json "$results/$1.json" --plots "$results/plots/$1"
}

step_build() {
  python benchmarks/recipes/make_detector.py
  for precision in int8 bf16 fp32; do build_one benchmarks/recipes/resnet50.yaml openvino "$precision"; done
  build_one recipes/mobilenet_v3_large.yaml openvino int8
  build_one benchmarks/recipes/ssdlite320.yaml openvino int8 benchmarks/recipes/ssdlite320.safetensors
  build_one benchmarks/recipes/nothing.yaml openvino fp32
}

step_client() {
  python scripts/benchmark_model.py --check-client --connections 1 8 16 --json "$results/client.json"
}

step_resnet50() {
  serve resnet50/openvino-int8
  measure resnet50 resnet50 --export resnet50="$exports/resnet50/openvino-int8" --connections 16 --in-process --compare "${peers[@]}"
}

step_again() { # the same once more: what does a second run say?
  serve resnet50/openvino-int8
  measure again resnet50 --export resnet50="$exports/resnet50/openvino-int8" --connections 16 --in-process --compare "${peers[@]}"
}

step_precisions() {
  for precision in bf16 fp32; do
    serve "resnet50/openvino-$precision"
    measure "resnet50-$precision" resnet50 --export resnet50="$exports/resnet50/openvino-$precision" --connections 16 --compare stock-tuned
  done
}

step_latency() {
  serve resnet50/openvino-int8
  measure latency resnet50 --connections 1 2 4 8 16 32 --in-process 1 4 --rates 50% 70% 85%
}

step_mobilenet() {
  serve mobilenet_v3_large/openvino-int8
  measure mobilenet mobilenet_v3_large --connections 16 --in-process
}

step_ssdlite() {
  serve ssdlite320/openvino-int8
  measure ssdlite ssdlite320 --export ssdlite320="$exports/ssdlite320/openvino-int8" --connections 16 --in-process --compare stock-tuned
}

step_overhead() {
  serve nothing/openvino-fp32
  measure overhead nothing --export nothing="$exports/nothing/openvino-fp32" --connections 16 --compare stock-default
}

step_start() {
  serve resnet50/openvino-int8 && stop
  python benchmarks/measure_start.py resnet50 --config "$config" --export "$exports/resnet50/openvino-int8" --json "$results/start.json"
}

step_photos() { # fp32, judged by eager fp32: what is different then is the preprocessing
  serve resnet50/openvino-fp32
  measure photos resnet50 --export resnet50="$exports/resnet50/eager-fp32" --compare stock-tuned --connections 1 --image-size 4000x3000 --image-count 12
}

step_render() {
  python benchmarks/render.py
}

[ "${1:-}" = --help ] && { usage; exit 0; }
mkdir -p "$store" "$results"
for step in ${*:-build client resnet50 precisions latency mobilenet ssdlite overhead start photos again render}; do
  [ "$(type -t "step_$step")" = function ] || { usage; echo "error: unknown step '$step'" >&2; exit 1; }
  "step_$step"
done
