#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Removes everything under build/ but build/deps, which holds downloads.
set -eu
cd "$(dirname "$0")/.."

[ -d build ] || exit 0
find build -mindepth 1 -maxdepth 1 ! -name deps -exec rm -rf {} +
