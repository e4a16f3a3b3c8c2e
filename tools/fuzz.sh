#!/usr/bin/env bash
# Runs every libFuzzer harness of a fuzz build for some seconds each: tools/fuzz.sh build/fuzz 60
# New inputs go to .cache/fuzz/NAME, crashes beside them; the committed corpus is only read. Keep a
# crashing input as a named file in the committed corpus together with the fix.
set -euo pipefail
cd "$(dirname "$0")/.."
# Leaks of libraries, each with its reason.
export LSAN_OPTIONS=suppressions=$PWD/tools/lsan.supp:print_suppressions=0
build=$1
seconds=$2
failed=()
while read -r program corpus; do
  name=$(basename "$program")
  found=.cache/fuzz/$name
  mkdir -p "$found"
  printf '== %s for %s s\n' "$name" "$seconds"
  # -rss_limit_mb and -timeout turn unbounded memory or time into a finding.
  # shellcheck disable=SC2086  # the corpus is a list of folders, separated by semicolons in CMake's way
  "$program" -max_total_time="$seconds" -rss_limit_mb=1024 -timeout=5 -print_final_stats=1 \
    -artifact_prefix="$found/crash-" "$found" ${corpus//;/ } || failed+=("$name")
done < "$build/fuzzers.txt"
if ((${#failed[@]})); then
  printf 'findings in: %s (inputs under .cache/fuzz)\n' "${failed[*]}" >&2
  exit 1
fi
