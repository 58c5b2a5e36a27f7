#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Line and branch coverage of src/ by the unit tests, with floors.
#
# What counts as a branch: the library is compiled without optimization, so that every branch the
# compiler counts is one that the source has (with inlining and unrolling the same condition would
# be counted once per copy). Branches on lines without code of their own, such as the end of a
# scope, are left out (--exclude-unreachable-branches), and so is VAPIC_ASSERT, which exists in
# debug builds only and whose other side is by definition never taken.
set -eu
cd "$(dirname "$0")/.."

lines=95
branches=85
dir=build/coverage

TARGETS=unit-tests sh tools/build.sh "$dir" -Db_coverage=true -Doptimization=0 -Ddebug=true \
    -Db_ndebug=true
find "$dir" -name '*.gcda' -delete
meson test -C "$dir" --no-rebuild --print-errorlogs \
    --suite core --suite threads --suite dev >"$dir/test.log" 2>&1 || {
    cat "$dir/test.log"
    exit 1
}
exec gcovr --root . --filter 'src/' --object-directory "$dir" \
    --exclude-unreachable-branches --exclude-lines-by-pattern '.*\bVAPIC_ASSERT\(.*' \
    --txt --print-summary \
    --html-details "$dir/coverage.html" \
    --fail-under-line "$lines" --fail-under-branch "$branches"
