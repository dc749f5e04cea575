#!/usr/bin/env bash
# From nothing to two served models with a prediction from each.
#
#   bash scripts/quickstart.sh          install, build, serve, predict
#   bash scripts/quickstart.sh --cpu    with PyTorch's CPU builds; --gpu: CUDA
#   bash scripts/quickstart.sh --stop   stop the server
#
# Needs Python 3.10 to 3.13 with venv. Java comes with a package if there is none.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/install.sh
source scripts/install.sh

case "${1:-}" in
  "" | --cpu | --gpu) ;;
  --stop)
    [ -x .venv/bin/python ] || { echo "nothing was running"; exit 0; }
    exec .venv/bin/python scripts/serve_models.py stop
    ;;
  *)
    sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    [ "$1" = --help ] && exit 0
    echo "error: unknown argument '$1'; expected nothing, --cpu, --gpu, --stop or --help" >&2
    exit 1
    ;;
esac

install_requirements ${1:+"$1"} requirements.txt requirements/evaluation.txt

# An archive is built when it is missing, or older than what goes into it.
needs_build() {
  [ ! -f "$2" ] || [ -n "$(find handlers scripts/mar_tools "$1" -newer "$2" -type f ! -name '*.pyc' -print -quit)" ]
}

rebuilt=no
for example in digits_classification:digits digits_detection:digits_detection; do
  folder=examples/${example%%:*} archive=model_store/${example##*:}.mar
  if needs_build "$folder" "$archive"; then
    echo "== build $archive"
    python scripts/build_model.py "$folder/recipe.yaml" --budget-min 0.5
    rebuilt=yes
  fi
done

echo "== serve"
if [ "$rebuilt" = no ] && python scripts/serve_models.py status 2>/dev/null; then
  echo "already running"
else
  python scripts/serve_models.py restart
fi

echo "== predict: each picture is named after the digit on it"
python scripts/predict_images.py digits examples/digits_classification/samples --option top_k=1
echo "== predict: this scene holds 0, 1, 3, 6, 8 and 9"
python scripts/predict_images.py digits_detection examples/digits_detection/samples/scene_4.jpg

cat <<NEXT

Both models answer on $(sed -n 's/^inference_address=//p' config.properties). What next:
  source .venv/bin/activate
  python scripts/predict_images.py digits_detection examples/digits_detection/samples --save-annotated annotated/
  python scripts/open_playground.py                        a page to try both with pictures of yours
  python scripts/manage_models.py list
  python scripts/build_model.py recipes/resnet50.yaml      your own model: copy a recipe, see README.md
  bash scripts/quickstart.sh --stop
NEXT
