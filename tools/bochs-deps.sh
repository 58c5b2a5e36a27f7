#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Fetches Bochs, the emulator that tests/bochs compares the silicon model with. Nothing is
# installed: the packages, with all libraries they need, are unpacked below build/deps, and Bochs
# runs there on its own C library. Called by tools/deps.sh and tests/bochs/run; quick and offline
# when everything is there.
#
#   tools/bochs-deps.sh [--dir DIR] [--suite SUITE]
#
#   --dir DIR      where to put things (default: build/deps of this source tree)
#   --suite SUITE  whose Bochs (default: trixie; older ones are too old, see tests/bochs)
#
# What it leaves in DIR: bochs-SUITE/root, the unpacked packages. Prints that path.

set -eu

src=$(cd "$(dirname "$0")/.." && pwd)
dir=$src/build/deps
suite=trixie
. "$src/tools/apt.sh"

while [ $# -gt 0 ]; do
    case $1 in
    --dir) dir=${2:?--dir needs a directory}; shift ;;
    --suite) suite=${2:?--suite needs a name}; shift ;;
    *) die "unknown argument '$1' (usage: tools/bochs-deps.sh [--dir DIR] [--suite SUITE])" ;;
    esac
    shift
done
check_suite
lock_dir
bochs=$dir/bochs-$suite
root=$bochs/root
if [ -e "$bochs/.complete" ]; then
    echo "$root"
    exit 0
fi

need apt-get dpkg-deb
echo "deps: fetching Bochs of $suite and its libraries" >&2
apt_for_suite

# As if no package were installed here: so the download holds every library.
mkdir -p "$bochs/archives/partial"
: >"$bochs/status"
logged with_apt apt-get -y --no-install-recommends --download-only \
    -o "Dir::State::status=$bochs/status" -o Debug::NoLocking=1 \
    -o "Dir::Cache::archives=$bochs/archives" install bochs bochs-term ||
    die "cannot download Bochs of '$suite'"

rm -rf "$root"
mkdir -p "$root"
for package in "$bochs"/archives/*.deb; do
    case ${package##*/} in
    bochs* | vgabios* | lib* | zlib1g*)
        dpkg-deb -x "$package" "$root" || die "cannot unpack ${package##*/}" ;;
    esac
done
[ -x "$root/usr/bin/bochs-bin" ] || die "the package of '$suite' holds no usr/bin/bochs-bin"
rm -rf "$bochs/archives"
: >"$bochs/.complete"
echo "$root"
