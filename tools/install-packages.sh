#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Installs the Debian packages of tools/packages.txt that are missing; does nothing, quickly and
# without any privilege, when none is. Called by the Makefile before every build.
set -eu
cd "$(dirname "$0")/.."

wanted=$(sed -e 's/#.*//' -e '/^[[:space:]]*$/d' tools/packages.txt)

if ! command -v dpkg-query >/dev/null 2>&1; then
    echo "install-packages: this is no Debian system: make sure that the equivalents of" \
        "tools/packages.txt are installed" >&2
    exit 0
fi

missing=
for package in $wanted; do
    state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) || state=
    [ "$state" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
    echo "install-packages: these Debian packages are missing:$missing" >&2
    echo "install-packages: install them as root and run make again: apt-get install$missing" >&2
    exit 2
fi

echo "install-packages: installing$missing" >&2
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# shellcheck disable=SC2086  # a list of words on purpose
if ! { apt-get update && apt-get install -y --no-install-recommends $missing; } >"$log" 2>&1; then
    tail -n 30 "$log" >&2
    echo "install-packages: apt-get failed (its last lines are above)" >&2
    exit 1
fi
