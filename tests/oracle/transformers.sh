#!/usr/bin/env bash
# Makes .venv-oracle (torch and transformers, about 5 GB, once) and runs check_transformers.py in it.
set -euo pipefail
cd "$(dirname "$0")/../.."
read -r wanted _ < <(sha256sum tests/oracle/requirements.txt)
if [[ $(cat .venv-oracle/setup.stamp 2>/dev/null) != "$wanted" ]]; then
  rm -rf .venv-oracle
  .venv/bin/python -m venv .venv-oracle
  .venv-oracle/bin/python -m pip install --disable-pip-version-check -r tests/oracle/requirements.txt
  printf '%s\n' "$wanted" > .venv-oracle/setup.stamp
fi
exec .venv-oracle/bin/python tests/oracle/check_transformers.py "$@"
