#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Fetches Bochs, the emulator that tests/bochs compares the silicon model with. Nothing is
# installed: the packages, with all libraries they need, are downloaded from the Debian mirror that
# this machine is configured for (apt verifies their signatures) and unpacked below build/deps, and
# Bochs runs there on its own C library. Called by tests/bochs/run; quick and offline when
# everything is there.
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

die()
{
    echo "bochs-deps.sh: $*" >&2
    exit 1
}

while [ $# -gt 0 ]; do
    case $1 in
    --dir) dir=${2:?--dir needs a directory}; shift ;;
    --suite) suite=${2:?--suite needs a name}; shift ;;
    *) die "unknown argument '$1' (usage: tools/bochs-deps.sh [--dir DIR] [--suite SUITE])" ;;
    esac
    shift
done
case $suite in
*[!a-z0-9-]*) die "'$suite' is no name of a Debian suite" ;;
esac

mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
state=$dir/bochs-$suite
root=$state/root
if [ -e "$state/.complete" ]; then
    echo "$root"
    exit 0
fi

for tool in apt-get dpkg-deb; do
    command -v $tool >/dev/null || die "$tool is missing: Bochs is fetched as a Debian package"
done
mkdir -p "$state/lists/partial" "$state/cache/archives/partial"

# Two builds in one tree would otherwise unpack over each other.
exec 9>"$state/.lock"
command -v flock >/dev/null && flock 9

mirror=$(apt-get indextargets --format '$(REPO_URI) $(COMPONENT)' \
    'Created-By: Packages' 'Origin: Debian' 'Label: Debian' 'Component: main' |
    sed -n '1s/ .*//p')
[ -n "$mirror" ] || die "this machine's apt knows no Debian mirror: see apt's sources.list"
echo "deb $mirror $suite main" >"$state/sources.list"

# fetching COMMAND... - apt-get's COMMAND for the suite, as if no package were installed: so the
# download holds every library. Unprivileged if need be.
: >"$state/status"
fetching()
{
    apt-get -q -y --no-install-recommends \
        -o APT::Sandbox::User=root -o Debug::NoLocking=1 -o Dir::Etc::sourceparts=/dev/null \
        -o "Dir::Etc::sourcelist=$state/sources.list" -o "Dir::State::lists=$state/lists" \
        -o "Dir::State::status=$state/status" -o "Dir::Cache=$state/cache" "$@" \
        >"$state/apt.log" 2>&1 || {
        sed 's/^/    /' "$state/apt.log" | tail -n 20 >&2
        return 1
    }
}

echo "deps: fetching Bochs of $suite and its libraries" >&2
fetching update || die "cannot read the package lists of suite '$suite': is there a network?"
fetching --download-only install bochs bochs-term || die "cannot download Bochs of '$suite'"

rm -rf "$root"
mkdir -p "$root"
for package in "$state"/cache/archives/*.deb; do
    case ${package##*/} in
    bochs* | vgabios* | lib* | zlib1g*)
        dpkg-deb -x "$package" "$root" || die "cannot unpack ${package##*/}" ;;
    esac
done
[ -x "$root/usr/bin/bochs-bin" ] || die "the package of '$suite' holds no usr/bin/bochs-bin"
rm -rf "$state/cache" "$state/lists"
: >"$state/.complete"
echo "$root"
