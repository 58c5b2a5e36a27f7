#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Line and branch coverage of src/ and silicon/ by the unit tests, with floors for each, and for
# src/accel/ by itself.
#
# What counts as a branch: the library is compiled without optimization and without inlining, so
# that every branch that gcc counts is one that the source has (an optimized build counts the same
# condition once per copy, and drops others). Left out are only branches on lines that have no code
# of their own, such as the end of a scope (--exclude-unreachable-branches). No line may ask
# to be left out: markers such as GCOVR_EXCL are not honoured.
set -eu
cd "$(dirname "$0")/.."

lines=95
branches=85
dir=build/coverage

rm -rf "$dir" # of sources that have changed nothing old may be counted
TARGETS=unit-tests sh tools/build.sh "$dir" -Db_coverage=true -Doptimization=0 -Ddebug=true \
    -Dcommand=false -Dc_args=-fprofile-update=atomic

status=0
meson test -C "$dir" --no-rebuild --print-errorlogs --suite core --suite threads \
    >"$dir/test.log" 2>&1 || {
    cat "$dir/test.log"
    echo "coverage: some tests failed; the figures below are without what they left out" >&2
    status=1
}

# floors NAME FILTER
floors()
{
    gcovr --root . --filter "$2" --object-directory "$dir" \
        --exclude-unreachable-branches --exclude-pattern-prefix NEVER \
        --txt --print-summary --html-details "$dir/coverage-$1.html" \
        --fail-under-line "$lines" --fail-under-branch "$branches" "$dir" || {
        echo "coverage: $1 needs $lines % of its lines and $branches % of its branches covered" >&2
        status=1
    }
}

floors core 'src/[^/]*$'
floors accel 'src/accel/'
floors silicon 'silicon/'
echo "coverage: details are in $dir/coverage-*.html"
exit $status
