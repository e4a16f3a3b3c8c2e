# The commands of this repository. `make help` lists them; each installs and builds what it needs and
# does nothing twice. The build itself is CMake's (CMakePresets.json), the set-up tools/setup.sh.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
PREFIX ?= /usr/local
FUZZ_SECONDS ?= 60
CHAOS ?= --kills 1000 --seed 1
DEMO_PROMPT ?= Explain in three sentences why a chain is as strong as its weakest link.

.PHONY: help setup build demo test test-long bench sim chaos install fuzz asan tsan format clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' Makefile

setup: ## install what is missing (Debian packages as root, .venv); nothing on a second run
	@tools/setup.sh

# configure PRESET, then build it: ninja re-runs CMake by itself when a CMake file changed.
define build_preset
	test -f build/$(1)/build.ninja || cmake --preset $(1)
	ninja -C build/$(1) $(2)
endef

build: setup ## build the program: build/release/chainpump
	@$(call build_preset,release,chainpump)

demo: build ## run a real model over three stage processes
	@build/release/chainpump run demo --prompt "$(DEMO_PROMPT)"

test: setup ## build and run every test except the long ones
	@$(call build_preset,release,all)
	@ctest --preset release

test-long: setup ## the long tests: whole grids, random kills, transformers as the oracle (installs torch into .venv-oracle)
	@$(call build_preset,release,all)
	@ctest --preset long

bench: build ## figures side by side with llama.cpp, ucx_perftest and tokenizers on this machine
	@$(call build_preset,release,tokenizer_bench executor_bench core_bench sequencer_bench overload_bench)
	@tests/bench/peers.sh
	@.venv/bin/python tests/bench/bench.py $(BENCH)

chaos: build ## 1,000 kills of ranks under load, every answer compared; goes on where it was; CHAOS="--kills 200 --seed 2" is another run
	@build/release/chainpump chaos tests/chaos/three_stages.yaml --model .venv/model.gguf \
	  --state "build/chaos$$(printf '%s' '$(CHAOS)' | tr -c 'a-z0-9' '-').state" $(CHAOS)

sim: setup ## 20,000 seeds of the simulated cluster, until one finds something; goes on where it was
	@$(call build_preset,release,chainpump-sim)
	@build/release/tests/sim/chainpump-sim --seed 0 --count 20000 --state build/sim.state

install: build ## install program, documents and schemas under PREFIX (default /usr/local); DESTDIR is honoured
	@cmake --install build/release --prefix $(PREFIX)

fuzz: setup ## each libFuzzer harness for FUZZ_SECONDS (default 60), on top of its committed corpus
	@$(call build_preset,fuzz,fuzzers)
	@tools/fuzz.sh build/fuzz $(FUZZ_SECONDS)

asan: setup ## all but the timing tests under AddressSanitizer and UBSan
	@$(call build_preset,asan,all)
	@ctest --preset asan

tsan: setup ## cores, loopback and kernels under ThreadSanitizer
	@$(call build_preset,tsan,tsan_tests)
	@ctest --preset tsan

format: setup ## clang-format every C++ file
	@git ls-files -z '*.h' '*.cc' | xargs -0 .venv/bin/clang-format -i

clean: ## remove build outputs; .venv and .cache stay
	@rm -rf build
