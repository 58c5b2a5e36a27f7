#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Fetches what the rig and `make run` boot, and builds their initramfs images. Nothing is
# installed: the packages are downloaded from the Debian mirrors this machine is configured for
# (apt verifies their signatures) and unpacked below build/deps. Called by `make`; quick and
# offline when everything is there.
#
#   tools/deps.sh [--dir DIR] [--suite SUITE] [--update]
#
#   --dir DIR      where to put things (default: build/deps of this source tree)
#   --suite SUITE  fetch the kernel of another Debian suite (trixie, sid, ...), nothing else
#   --update       ask the mirrors again for the newest kernel
#
# What it leaves in DIR:
#   vmlinuz            link to the newest kernel of this machine's suite
#   vmlinuz-SUITE      link to the newest kernel of SUITE, where one was asked for
#   vmlinuz-RELEASE    the kernels, host's and guest's alike
#   modules-RELEASE.cpio   the modules the rig's host loads, in order
#   rig-base.cpio      the rest of the rig's host: busybox and /init
#   guest-linux.cpio   the initramfs that `make run` boots
#   pkg/               downloaded packages;  root-*/  the same, unpacked

set -eu

META=linux-image-cloud-amd64
TOOLS="busybox-static rt-tests libc6"

src=$(cd "$(dirname "$0")/.." && pwd)
dir=$src/build/deps
suite=
update=

die()
{
    echo "deps.sh: $*" >&2
    exit 1
}

while [ $# -gt 0 ]; do
    case $1 in
    --dir) dir=${2:?--dir needs a directory}; shift ;;
    --suite) suite=${2:?--suite needs a name}; shift ;;
    --update) update=yes ;;
    *) die "unknown argument '$1' (usage: tools/deps.sh [--dir DIR] [--suite SUITE] [--update])" ;;
    esac
    shift
done

# Words that go into paths and into a sources list: no surprises in them.
case $suite in
*[!a-z0-9-]*) die "'$suite' is no name of a Debian suite" ;;
esac

mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
kernel_link=$dir/vmlinuz${suite:+-$suite}

# Two builds in one tree would otherwise unpack over each other.
exec 9>"$dir/.lock"
command -v flock >/dev/null && flock 9

# apt_for_suite - an apt configuration of our own for SUITE, on this machine's mirror and keys
apt_for_suite()
{
    state=$dir/apt-$suite
    mkdir -p "$state/lists/partial" "$state/cache/archives/partial"
    mirror=$(apt-get indextargets --format '$(REPO_URI) $(COMPONENT)' \
        'Created-By: Packages' 'Origin: Debian' 'Label: Debian' 'Component: main' |
        sed -n '1s/ .*//p')
    [ -n "$mirror" ] || die "this machine's apt knows no Debian mirror: see apt's sources.list"
    echo "deb $mirror $suite main" >"$state/sources.list"
    set -- -o "Dir::Etc::sourcelist=$state/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o "Dir::State::lists=$state/lists" -o "Dir::Cache=$state/cache"
    printf '%s\n' "$@" >"$state/options"
}

# with_apt COMMAND ARGUMENT... - apt's COMMAND for the wanted suite, unprivileged if need be
with_apt()
{
    tool=$1
    shift
    if [ -n "$suite" ]; then
        while IFS= read -r option; do
            set -- "$@" "$option"
        done <"$dir/apt-$suite/options"
    fi
    "$tool" -o APT::Sandbox::User=root -q "$@"
}

# fetch PACKAGE DIRECTORY - download PACKAGE and unpack it, unless that was done before
fetch()
{
    stamp=$2/.unpacked-$1
    [ -e "$stamp" ] && return
    mkdir -p "$dir/pkg" "$2"
    echo "deps: fetching $1"
    (cd "$dir/pkg" && rm -f "$1"_*.deb && with_apt apt-get download "$1") >"$dir/apt.log" 2>&1 || {
        sed 's/^/    /' "$dir/apt.log" >&2
        die "cannot download $1: is there a network, and was 'apt-get update' run?"
    }
    dpkg-deb -x "$dir/pkg/$1"_*.deb "$2" || die "cannot unpack $1"
    : >"$stamp"
}

# newest_kernel - the package that the suite's meta package stands for
newest_kernel()
{
    with_apt apt-cache depends "$META" |
        sed -n 's/^ *Depends: \(linux-image-[^ ]*\)$/\1/p' | head -n 1
}

# kernel_parts PACKAGE RELEASE - the packages that a kernel package of newer suites is divided into
kernel_parts()
{
    with_apt apt-cache depends "$1" | sed -n "s/^ *Depends: \(linux-[a-z]*-$2\)\$/\1/p"
}

# kernel_file ROOT RELEASE - the kernel image in an unpacked package
kernel_file()
{
    for file in "$1/boot/vmlinuz-$2" "$1/usr/lib/modules/$2/vmlinuz"; do
        [ ! -f "$file" ] || { echo "$file"; return; }
    done
}

# get_kernel - the newest kernel of the suite: unpack it, link it
get_kernel()
{
    if [ -n "$suite" ]; then
        apt_for_suite
        with_apt apt-get update >"$dir/apt.log" 2>&1 || {
            sed 's/^/    /' "$dir/apt.log" >&2
            die "cannot read the package lists of suite '$suite'"
        }
    fi
    package=$(newest_kernel)
    if [ -z "$package" ] && [ -z "$suite" ] && [ "$(id -u)" = 0 ]; then
        apt-get -q update >"$dir/apt.log" 2>&1 || true
        package=$(newest_kernel)
    fi
    [ -n "$package" ] || die "apt knows no package $META: run 'apt-get update' first"
    release=${package#linux-image-}
    root=$dir/root-$release
    for part in "$package" $(kernel_parts "$package" "$release"); do
        fetch "$part" "$root"
    done
    file=$(kernel_file "$root" "$release")
    [ -n "$file" ] || die "$package and what it is divided into hold no kernel image"
    cp "$file" "$dir/vmlinuz-$release"
    ln -sfn "vmlinuz-$release" "$kernel_link"
}

for tool in apt-get apt-cache dpkg-deb cpio readelf; do
    command -v $tool >/dev/null || die "$tool is missing: run 'make packages'"
done

if [ -n "$update" ] || [ ! -e "$kernel_link" ]; then
    get_kernel
fi
kernel=$(readlink "$kernel_link")

# The tools are of this machine's suite, always.
suite=
for package in $TOOLS; do
    fetch "$package" "$dir/root-tools"
done

sh "$src/tools/initramfs.sh" "$dir" "${kernel#vmlinuz-}"
