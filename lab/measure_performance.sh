#!/usr/bin/env bash
# Every number of docs/evidence/performance.md: builds the models, serves them one after the other, measures, draws, writes.
#
#   bash lab/measure_performance.sh                    everything; about two hours on two cores that do nothing else
#   bash lab/measure_performance.sh build              only the archives, which all other steps need
#   bash lab/measure_performance.sh resnet50 again     some steps, in this order
#   bash lab/measure_performance.sh render             the page, from the results that are there
#
# Results: lab/results/performance/<step>.json, overwritten; RESULTS=folder ROUNDS=1 ROUND_S=1 for a try.
# Needs requirements/lab.txt.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# shellcheck source=lab/peers/measuring.sh
source lab/peers/measuring.sh
peers=(litserve mosec ray bentoml mlserver fastapi pytriton)

steps="build client resnet50 settings growth idiomatic precisions latency mobilenet ssdlite overhead java profile memory start photos again tune render"

usage() {
  sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
  echo "Steps: $steps"
}

step_build() {
  python lab/recipes/make_detector.py
  for precision in int8 bf16 fp32; do
    build lab/recipes/resnet50.yaml --backend openvino --precision "$precision"
  done
  build recipes/mobilenet_v3_large.yaml --weights random --backend openvino --precision int8
  build lab/recipes/ssdlite320.yaml --backend openvino --precision int8
  python lab/recipes/make_photographs.py
  build lab/recipes/resnet50_photos.yaml --backend openvino --precision fp32
  build lab/recipes/nothing.yaml --backend openvino --precision fp32
}

step_client() {
  python lab/compare_servers.py --check-client --connections 1 8 16 --round-s 3 --json "$results/client.json"
}

compare_resnet50() { # NAME SERVER...
  serve "$exports"/resnet50/openvino-int8
  measure "$1" resnet50 --export resnet50="$exports/resnet50/openvino-int8" --connections 16 --in-process --compare "${@:2}"
}

step_resnet50() {
  compare_resnet50 resnet50 stock "${peers[@]/%/-artifact}"
}

step_settings() { # what nobody tuned, what a build writes, what the other steps have
  serve "$exports"/resnet50/openvino-int8
  stop
  python lab/measure_settings.py "$store"/resnet50.mar --config "$config" "${load[@]}" --json "$results/settings.json"
}

sizes=(365x274 1155x866 2582x1936 4000x3000 8160x6120) # 0.1, 1, 5, 12 and 50 megapixels

step_growth() ( # more connections, more requests than it can answer, larger pictures: what breaks first?
  vary '$a max_request_size=26214400'
  serve "$exports"/resnet50/openvino-int8
  measure growth resnet50 --connections 1 4 16 64 256 1000 --rates 50% 100% 150% 200% 300%
  for size in "${sizes[@]}"; do
    measure "size-$size" resnet50 --connections 8 --image-size "$size" --image-count 8
  done
)

step_idiomatic() { # apart from the others: all of them together need more than 20 GB of memory
  compare_resnet50 idiomatic "${peers[@]/%/-idiomatic}"
}

step_again() { # what does a second run say?
  compare_resnet50 again stock "${peers[@]/%/-artifact}"
}

step_precisions() {
  for precision in bf16 fp32; do
    serve "$exports/resnet50/openvino-$precision"
    measure "resnet50-$precision" resnet50 --export resnet50="$exports/resnet50/openvino-$precision" --connections 16 --compare stock-tuned
  done
}

step_latency() ( # without batches: on a CPU they make little faster, and a request waits for all of its batch
  vary 's/"batchSize": [0-9]*/"batchSize": 1/'
  serve "$exports"/resnet50/openvino-int8
  measure latency resnet50 --connections 1 4 16 32 --in-process 1 --rates 50% 70% 85%
)

step_mobilenet() {
  serve "$exports"/mobilenet_v3_large/openvino-int8
  measure mobilenet mobilenet_v3_large --connections 16 --in-process
}

step_ssdlite() {
  serve "$exports"/ssdlite320/openvino-int8
  measure ssdlite ssdlite320 --export ssdlite320="$exports/ssdlite320/openvino-int8" --connections 16 --in-process --compare stock-tuned
}

step_overhead() {
  serve "$exports"/nothing/openvino-fp32
  measure overhead nothing --export nothing="$exports/nothing/openvino-fp32" --connections 16 --compare stock-default
}

step_java() { # the first minute of a server, with and without Java's second compiler
  serve "$exports"/resnet50/openvino-int8
  measure java resnet50 --connections 16 --rounds 6
  stop
  (
    vary '/^vmargs=/s/ -XX:[^ ]*//g'
    serve "$exports"/resnet50/openvino-int8
    measure java-both-compilers resnet50 --connections 16 --rounds 6
  )
}

step_profile() { # where a worker's main thread spends its time under load; needs py-spy
  serve "$exports"/resnet50/openvino-int8
  python scripts/benchmark_model.py resnet50 --config "$config" --connections 16 --rounds 1 --round-s 20 >/dev/null &
  local worker
  worker=$(python scripts/manage_models.py describe resnet50 --json --config "$config" | python -c '
import json, sys
print(json.load(sys.stdin)[0]["workers"][0]["pid"])')
  sleep 8
  py-spy record --pid "$worker" --duration 10 --rate 200 --format raw --output "$results/worker-stacks.txt"
  wait
}

step_memory() { # what a worker takes that has only imported PyTorch, as TorchServe's own code does
  python -c '
import json, psutil, torch
print(json.dumps({"import_torch_mb": round(psutil.Process().memory_info().rss / 1e6, 1)}))' >"$results/memory.json"
}

step_start() {
  serve "$exports"/resnet50/openvino-int8 && stop
  python lab/measure_start.py resnet50 --config "$config" --export "$exports/resnet50/openvino-int8" --json "$results/start.json"
}

step_photos() ( # fp32, judged by eager fp32: what is different then is the decoding and the preprocessing
  vary 's/"minWorkers": [0-9]*/"minWorkers": 1/; s/"batchSize": [0-9]*/"batchSize": 1/' # all cores for the one request
  serve "$exports"/resnet50_photos/openvino-fp32 "$exports"/resnet50/openvino-fp32
  measure photos resnet50_photos resnet50 --export resnet50_photos="$exports/resnet50/eager-fp32" \
    resnet50="$exports/resnet50/eager-fp32" --compare stock-tuned --connections 1 --image-size 4000x3000 --image-count 12
)

step_tune() ( # does the search find what trying everything finds?
  vary ''
  serve "$exports"/mobilenet_v3_large/openvino-int8
  stop
  tune=(python scripts/tune_model.py mobilenet_v3_large --config "$config" --p99-ms "${P99_MS:-60}" --trial-s "${TRIAL_S:-3}")
  tune+=(--batch-sizes 1 4 8 16 --delays-ms 1 5)
  "${tune[@]}" --exhaustive --json "$results/tuning-exhaustive.json"
  "${tune[@]}" --budget-min "${BUDGET_MIN:-5}" --json "$results/tuning-search.json"
  rm "$results"/tuning-*.journal
  # The search's choice and the best of all settings, in turns.
  python lab/confirm_tuning.py --config "$config" --p99-ms "${P99_MS:-60}" --exhaustive "$results/tuning-exhaustive.json" \
    --search "$results/tuning-search.json" --json "$results/tuning-confirmed.json"
)

step_render() {
  python lab/render_pages.py performance
}

[ "${1:-}" = --help ] && { usage; exit 0; }
mkdir -p "$store" "$results"
for step in ${*:-$steps}; do
  [ "$(type -t "step_$step")" = function ] || { usage; echo "error: unknown step '$step'" >&2; exit 1; }
  "step_$step"
done
