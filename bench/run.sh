#!/bin/sh
# SPDX-License-Identifier: MIT
#
# usage: run.sh [measure.py option or operation...]
#
# Builds the library and bench/hotpaths with -O2 and without link-time optimization in a build
# directory of its own and measures it: instructions and locked operations (callgrind), and
# nanoseconds; then, unless anything special was asked for, it prints what IPIs of nested guests
# cost (bench/nested_exits). The compiler is the environment's CC, as meson takes it; run.sh --help
# tells the options.
set -eu
cd "$(dirname "$0")/.."

command -v valgrind >/dev/null || {
    echo "run.sh: valgrind is missing: apt-get install valgrind" >&2
    exit 2
}
dir=build/bench-$(basename "${CC:-cc}")
TARGETS='bench/hotpaths bench/nested_exits' sh tools/build.sh "$dir" --buildtype=release \
    -Doptimization=2 -Db_lto=false -Dcommand=false >&2
python3 bench/measure.py "$dir/bench/hotpaths" \
    --compiler "$(${CC:-cc} --version | head -n 1), -O2" "$@"
if [ $# -eq 0 ]; then
    "$dir/bench/nested_exits"
fi
