#!/usr/bin/env bash
# Debian's nginx with two of its modules, without root: unpacked into a folder, where scripts/serve_front.py looks for it.
#
#   bash deploy/nginx/fetch.sh          into .nginx/ of this checkout
#
# It does not keep itself up to date: where you are root, `apt install nginx libnginx-mod-http-js libnginx-mod-stream` instead.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
folder=$PWD/.nginx
packages=(nginx libnginx-mod-http-js libnginx-mod-stream)
work=$(mktemp -d "$PWD/.nginx-fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT

# All that apt writes goes into a folder of our own. The machine's package lists come first; where they are missing or too old, own ones.
apt=(apt-get -q -o Debug::NoLocking=1 -o Dir::Cache="$work/cache" -o APT::Sandbox::User="$(id -un)")
mkdir -p "$work/cache/archives/partial" "$work/lists/partial" "$work/debs"

download() {
  local missing
  # what apt would install: the packages, and the libraries that this machine lacks
  missing=$("${apt[@]}" -s install --no-install-recommends "${packages[@]}" | awk '$1 == "Inst" { print $2 }')
  # shellcheck disable=SC2086
  (cd "$work/debs" && "${apt[@]}" download ${missing:-"${packages[@]}"})
}
if ! download; then
  apt+=(-o Dir::State::Lists="$work/lists")
  "${apt[@]}" update
  download
fi

for package in "$work"/debs/*.deb; do dpkg -x "$package" "$work/root"; done
rm -rf "$folder"
mv "$work/root" "$folder"
"$folder/usr/sbin/nginx" -v
