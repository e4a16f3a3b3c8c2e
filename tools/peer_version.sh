# The pinned peer: sourced by tools/setup.sh and tests/bench/peers.sh.
PEER_VERSION=0.3.36
PEER_NAME=llama_cpp_python-$PEER_VERSION
