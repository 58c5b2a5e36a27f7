#!/bin/sh
# SPDX-License-Identifier: MIT
#
# usage: test.sh DIR
#
# Runs every test; DIR is the finished plain build. The phases go on after a failure, each leaves
# its results in build/results, and tools/tally.py adds them up: the last line of the output is
# `N passed, N failed`, and the exit status is 0 only when something ran and nothing failed.
#
#   gcc     unit tests, examples, freestanding and tree checks, in DIR
#   clang   the same sources with clang, warnings as errors; unit tests
#   asan    unit tests under the address and undefined-behaviour sanitizers
#   fuzz    a fixed share of every fuzz target; their corpora are unit tests above
#   bochs   the silicon model against Bochs: an eighth of the list of cases, always the same
#   tsan    the concurrent tests under the thread sanitizer
#   check   interleavings of every scenario of `vapic check`, as far as the time allows
#   rig     guests: the built-in one, the trap guests and Linux, inside the rig
set -u
cd "$(dirname "$0")/.." || exit 2

main=$1
results=build/results
rm -rf "$results"
mkdir -p "$results"

say()
{
    printf '== %-6s %s\n' "$1" "$2"
}

# failed_build PHASE LOG: a phase that does not build is one failed test.
failed_build()
{
    tail -n 60 "$2"
    printf '1..1\nnot ok 1 - %s build\n' "$1" >"$results/$1-build.tap"
}

# build PHASE DIR [SETUP-OPTION...]: builds DIR (the environment's TARGETS, or everything).
build()
{
    phase=$1 dir=$2
    shift 2
    sh tools/build.sh "$dir" "$@" >"$results/$phase-build.log" 2>&1 && {
        printf '1..1\nok 1 - %s build\n' "$phase" >"$results/$phase-build.tap"
        return 0
    }
    failed_build "$phase" "$results/$phase-build.log"
    return 1
}

# units PHASE DIR [MESON-TEST-OPTION...]: runs the tests of DIR and keeps meson's record.
units()
{
    phase=$1 dir=$2
    shift 2
    rm -f "$dir/meson-logs/testlog.json"
    $fixed_layout meson test -C "$dir" --no-rebuild --print-errorlogs "$@" \
        >"$results/$phase.log" 2>&1 || cat "$results/$phase.log"
    cp "$dir/meson-logs/testlog.json" "$results/$phase.json" 2>/dev/null ||
        : >"$results/$phase.json"
}

# Stop at the first finding: a sanitizer's report must fail its test.
export ASAN_OPTIONS=detect_stack_use_after_return=1:strict_string_checks=1
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1

# The sanitizers cannot map their shadow where the kernel randomizes too many address bits.
fixed_layout=
if setarch -R true 2>/dev/null; then
    fixed_layout="setarch -R"
fi

say gcc "unit tests, examples, freestanding and tree checks"
units gcc "$main"

say clang "build with warnings as errors, unit tests"
CC=clang build clang build/clang && units clang build/clang --suite core --suite threads --suite dev

say asan "unit tests under the address and undefined-behaviour sanitizers"
TARGETS="unit-tests fuzz-targets" build asan build/asan \
    -Db_sanitize=address,undefined -Db_lundef=false -Doptimization=1 -Dwerror=false \
    -Dc_args=-fno-sanitize-recover=all &&
    units asan build/asan --suite core --suite threads --suite dev --timeout-multiplier 5

say fuzz "a share of every fuzz target, the same every time"
sh tools/fuzz.sh share >"$results/fuzz.tap" || grep -v '^ok' "$results/fuzz.tap"

say bochs "the silicon model against Bochs"
tests/bochs/run --shares 8 "$main" >"$results/bochs.tap" || grep -v '^ok' "$results/bochs.tap"

say tsan "concurrent tests under the thread sanitizer"
TARGETS=unit-tests build tsan build/tsan \
    -Db_sanitize=thread -Db_lundef=false -Doptimization=1 -Dwerror=false &&
    units tsan build/tsan --suite tsan --timeout-multiplier 5

say check "interleavings of every scenario, each memory model"
sh tools/check-share.sh "$main" "$results" >"$results/check.tap" 2>"$results/check.log" || {
    grep -A 2 '^not ok' "$results/check.tap"
    cat "$results/check.log"
}

say rig "guests inside the rig"
tests/rig/run "$main" 2>"$results/rig.log" | tee "$results/rig.tap"
cat "$results/rig.log" >&2

python3 tools/tally.py "$results"
