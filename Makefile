# SPDX-License-Identifier: MIT
#
# A thin wrapper around meson and the scripts of tools/. Everything it makes lies under build/.
#
#   make build        install what is missing, fetch the host kernel, build everything
#   make run          boot Debian's stock cloud kernel with 4 vCPUs through libvapic
#   make test         every test, ending in a line `N passed, N failed`
#   make check        explore interleavings of every scenario (CHECK_FLAGS="all --schedules 10000")
#   make check-long   tests that take too long for `make test`
#   make fuzz T=60    fuzz every target for T seconds, print a table; FUZZ=share, coverage, afl
#   make bench        count instructions and locked operations of the hot paths
#   make coverage     line and branch coverage of src/ by the unit tests, with floors
#   make lint         clang-format and clang-tidy, changing nothing
#   make format       clang-format, in place
#   make spec-report  which rules of the manuals the library cites, and which tests cite them
#   make clean        remove the builds, keep the downloads of build/deps

BUILD := build/main
JOBS  := $(shell nproc)

CHECK_FLAGS ?= all --schedules 10000

.PHONY: build run test check check-long bench coverage lint format spec-report packages deps clean
.PHONY: distclean fuzz
.DEFAULT_GOAL := build

packages:
	@sh tools/install-packages.sh

deps: packages
	@sh tools/deps.sh

build: deps
	@sh tools/build.sh $(BUILD)

run: build
	@sh tools/run-linux.sh $(BUILD)

test: build
	@sh tools/test.sh $(BUILD)

check: build
	@$(BUILD)/cli/vapic check $(CHECK_FLAGS)

check-long: build
	@sh tools/check-long.sh $(BUILD)

fuzz: packages
	@sh tools/fuzz.sh $(or $(FUZZ),run) $(if $(filter share coverage corpus,$(FUZZ)),,$(or $(T),60)) \
	    $(TARGETS)

bench: packages
	@sh bench/run.sh $(BENCH_FLAGS)

coverage: packages
	@sh tools/coverage.sh

lint: packages
	@sh tools/lint.sh

format: packages
	@sh tools/lint.sh --fix

spec-report:
	@python3 tools/spec-report.py $(SPEC_REPORT_FLAGS)

clean:
	@sh tools/clean.sh

distclean:
	rm -rf build
