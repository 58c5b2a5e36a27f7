#!/bin/sh
# SPDX-License-Identifier: MIT
#
# usage: build.sh DIR [MESON-SETUP-OPTION...]
#
# Configures DIR unless that is done, and builds TARGETS (everything, if unset) in it with one job
# per core. The compiler is the environment's CC, as meson takes it.
set -eu
cd "$(dirname "$0")/.."

dir=$1
shift
mkdir -p build
if [ ! -f "$dir/build.ninja" ]; then
    meson setup "$dir" . "$@" >"$dir.setup.log" 2>&1 || {
        cat "$dir.setup.log" >&2
        exit 1
    }
fi
# shellcheck disable=SC2086  # a list of words on purpose
exec ninja -C "$dir" -j "$(nproc)" --quiet ${TARGETS-}
