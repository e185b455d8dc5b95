#!/usr/bin/env bash
# Makes .venv: from a bare Python 3.11+ to an installed Aviary.
#
#   scripts/setup.sh runtime   what serving needs
#   scripts/setup.sh client    and the client that the demo talks through
#   scripts/setup.sh dev       and the tools and references of the tests (contains the other two)
#
# Every package comes from the lock files, with its hash. A second run with nothing changed returns at once.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly KIND="${1:-runtime}"
readonly VENV="$PWD/.venv"

say() { printf '==> %s\n' "$*"; }
fail() {
  printf '%s\n' "$@" >&2
  exit 1
}

find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11; do
    [ -n "$candidate" ] || continue
    if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  fail "Aviary needs Python 3.11, 3.12 or 3.13, and none is on the PATH." \
    "On Debian or Ubuntu: apt-get install python3. Elsewhere: make PYTHON=/path/to/python3.12 ..."
}

# The Debian packages without which .venv cannot be made. ctc-segmentation is published as source only, so a
# compiler and Python's headers are among them.
missing_packages() {
  local python="$1" version
  version="$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')"
  "$python" -c 'import ensurepip, venv' 2>/dev/null || echo "$version-venv"
  "$python" -c 'import os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null ||
    echo "$version-dev"
  command -v "${CC:-gcc}" >/dev/null && [ -e /usr/include/stdlib.h ] || echo gcc libc6-dev
}

install_packages() {
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "Installing $* with apt-get"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive DEBCONF_NOWARNINGS=yes apt-get install -y -qq --no-install-recommends "$@" >/dev/null
    return
  fi
  fail "" "These system packages are missing. Install them, then run the same command again:" "" \
    "    sudo apt-get install $*" ""
}

make_venv() {
  local python missing
  python="$(find_python)"
  missing="$(missing_packages "$python" | tr '\n' ' ')"
  # shellcheck disable=SC2086 # one word per package
  [ -z "$missing" ] || install_packages $missing
  say "Creating .venv with $("$python" --version)"
  "$python" -m venv --clear "$VENV"
  # The installer is pinned by the lock as everything else is.
  awk '/^uv==/ { found = 1 } found { print } found && !/\\$/ { exit }' requirements-dev.lock >"$VENV/uv.txt"
  "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$VENV/uv.txt"
}

# What the environment follows from; pyproject.toml holds the command's name and the version.
fingerprint() { cat pyproject.toml requirements*.lock scripts/setup.sh | sha256sum; }

is_current() { [ "$(cat "$VENV/.aviary-$1" 2>/dev/null)" = "$(fingerprint)" ]; }

pip_install() { VIRTUAL_ENV="$VENV" "$VENV/bin/uv" pip install "$@"; }

case "$KIND" in
  runtime | client | dev) ;;
  *) fail "usage: scripts/setup.sh runtime|client|dev" ;;
esac

[ "$(uname -s)" = Linux ] || fail "Aviary runs on Linux; this is $(uname -s)."
if [ -x "$VENV/bin/python" ] && is_current "$KIND"; then
  exit 0
fi

SECONDS=0
[ -x "$VENV/bin/uv" ] || make_venv
case "$KIND" in
  runtime) locks=(requirements.lock) kinds=(runtime) ;;
  client) locks=(requirements.lock requirements-client.lock) kinds=(runtime client) ;;
  dev) locks=(requirements-dev.lock) kinds=(runtime client dev) ;;
esac
say "Installing from ${locks[*]}: several GB the first time (PyTorch comes with its CUDA libraries)"
# Build tools are part of the lock too: a new release of one must not change what an old commit builds.
pip_install --require-hashes --build-constraints requirements-dev.lock "${locks[@]/#/--requirements=}"
say "Installing Aviary itself"
pip_install --quiet --no-deps --build-constraints requirements-dev.lock --editable .
for kind in "${kinds[@]}"; do fingerprint >"$VENV/.aviary-$kind"; done
say "Ready after ${SECONDS} s"
