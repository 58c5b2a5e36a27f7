#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Fetches what the rig and `make run` boot and what tests compare with, and builds the initramfs
# images. Nothing is installed: packages are unpacked below build/deps. Called by `make`; quick and
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
#   bochs-*/           the emulator of tests/bochs: see tools/bochs-deps.sh

set -eu

META=linux-image-cloud-amd64
TOOLS="busybox-static rt-tests libc6"

src=$(cd "$(dirname "$0")/.." && pwd)
dir=$src/build/deps
suite=
update=

. "$src/tools/apt.sh"

while [ $# -gt 0 ]; do
    case $1 in
    --dir) dir=${2:?--dir needs a directory}; shift ;;
    --suite) suite=${2:?--suite needs a name}; shift ;;
    --update) update=yes ;;
    *) die "unknown argument '$1' (usage: tools/deps.sh [--dir DIR] [--suite SUITE] [--update])" ;;
    esac
    shift
done

check_suite
lock_dir
kernel_link=$dir/vmlinuz${suite:+-$suite}

# fetch PACKAGE DIRECTORY - download PACKAGE and unpack it, unless that was done before
fetch()
{
    stamp=$2/.unpacked-$1
    [ -e "$stamp" ] && return
    mkdir -p "$dir/pkg" "$2"
    echo "deps: fetching $1"
    rm -f "$dir/pkg/$1"_*.deb
    (cd "$dir/pkg" && logged with_apt apt-get download "$1") ||
        die "cannot download $1: is there a network, and was 'apt-get update' run?"
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
    [ -z "$suite" ] || apt_for_suite
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

need apt-get apt-cache dpkg-deb cpio readelf

if [ -n "$update" ] || [ ! -e "$kernel_link" ]; then
    get_kernel
fi
kernel=$(readlink "$kernel_link")

# The tools are of this machine's suite, always.
wanted=$suite
suite=
for package in $TOOLS; do
    fetch "$package" "$dir/root-tools"
done

sh "$src/tools/initramfs.sh" "$dir" "${kernel#vmlinuz-}"

# Nothing that is built needs Bochs: without it, one test says why and fails.
[ -n "$wanted" ] || {
    exec 9>&-
    sh "$src/tools/bochs-deps.sh" --dir "$dir" >/dev/null || echo "deps: going on without Bochs" >&2
}
