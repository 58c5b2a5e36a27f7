#!/bin/sh
# SPDX-License-Identifier: MIT
#
# usage: check-share.sh DIR RESULTS [--long]
#
# Every scenario of `vapic check` in every mode and under every memory model, as TAP; DIR is the
# finished build, the documents go to the directory RESULTS. Without --long as many schedules as
# `make test` has time for: the numbers below, the same ones in every run. With --long all that
# there are within the bounds that the scenarios state, up to so many seconds each.
set -u
cd "$(dirname "$0")/.." || exit 2

program=$1/cli/vapic
results=$2
mkdir -p "$results"

# explored NAME ARG...: one run over everything, its document kept as NAME.
explored()
{
    name=$1
    shift
    "$program" check all --json "$@" >"$results/check-$name.document"
}

if [ "${3:-}" = --long ]; then
    explored sc --seconds 600
    explored tso --tso --seconds 60
    explored c11 --memory c11 --seed 1 --schedules 20000
    explored sampled --seed 2 --schedules 20000
else
    explored sc --schedules 5000
    explored tso --tso --schedules 500
    explored c11 --memory c11 --seed 1 --schedules 200
fi
exec python3 tools/check-tap.py "$results"/check-*.document
