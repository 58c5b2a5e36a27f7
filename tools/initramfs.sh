#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Builds the initramfs images from packages that tools/deps.sh unpacked (and is called by it):
#
#   tools/initramfs.sh DIR RELEASE
#
#   DIR/modules-RELEASE.cpio  the modules of kernel RELEASE that the rig's host loads
#   DIR/rig-base.cpio         busybox and the rig's /init (tools/initramfs-rig.init)
#   DIR/guest-linux.cpio      busybox, hackbench and /init of tools/guest-linux
#
# All of them are plain, uncompressed newc archives: an emulated processor copies faster than it
# inflates. An image newer than everything it is made of is left alone.

set -eu

die()
{
    echo "initramfs.sh: $*" >&2
    exit 1
}

[ $# = 2 ] || die "usage: tools/initramfs.sh DIR RELEASE"
dir=$1
release=$2
here=$(cd "$(dirname "$0")" && pwd)
tools=$dir/root-tools
busybox=$tools/bin/busybox
host_modules="kvm-amd virtio_pci virtio_console"

# One newc archive of what lies in directory $2, the same bytes for the same content.
pack()
{
    find "$2" -exec touch -h -d @0 {} +
    (cd "$2" && find . -mindepth 1 | LC_ALL=C sort |
        cpio -o -H newc --quiet --reproducible -R 0:0) >"$1.new"
    mv "$1.new" "$1"
}

# newer TARGET SOURCE... - true if TARGET is there and newer than every SOURCE
newer()
{
    target=$1
    shift
    [ -e "$target" ] || return 1
    for source in "$@"; do
        [ -z "$(find "$source" -newer "$target")" ] || return 1
    done
}

with_busybox()
{
    mkdir -p "$1/bin" "$1/proc" "$1/sys" "$1/dev" "$1/tmp"
    cp "$busybox" "$1/bin/busybox"
    ln -s busybox "$1/bin/sh"
}

# The ELF interpreter and the libraries of program $2, from the unpacked packages, into tree $1.
with_libraries()
{
    loader=$(readelf -l "$2" | sed -n 's/.*interpreter: \(.*\)\]$/\1/p')
    libs=$tools/lib/x86_64-linux-gnu:$tools/usr/lib/x86_64-linux-gnu
    [ -e "$tools$loader" ] || loader=/usr$loader
    "$tools$loader" --library-path "$libs" --list "$2" | sed -n 's/.* => \(\/[^ ]*\) .*/\1/p' |
        while IFS= read -r lib; do
            mkdir -p "$1/lib/x86_64-linux-gnu"
            cp -L "$lib" "$1/lib/x86_64-linux-gnu/"
        done
    mkdir -p "$1/lib64"
    cp -L "$tools$loader" "$1/lib64/"
}

build_modules()
{
    root=$dir/root-$release
    modules=$root/lib/modules/$release
    [ -d "$modules" ] || modules=$root/usr/lib/modules/$release
    [ -d "$modules" ] || die "no modules of kernel $release below $root"
    find "$modules" -name '*.ko.xz' -exec xz -d {} +
    base=${modules%/lib/modules/*}
    "$busybox" depmod -b "$base" "$release"

    out=$work/modules
    mkdir -p "$out/modules/$release"
    for name in $host_modules; do
        entry=$(grep "/$name\.ko:" "$modules/modules.dep") || {
            grep -q "/$name\.ko" "$modules/modules.builtin" && continue
            die "kernel $release has no module $name"
        }
        # modules.dep lists a module's needs from the nearest to the deepest: load backwards.
        echo "$entry" | tr -d : | awk '{ for (i = NF; i > 0; i--) print $i }'
    done | awk '!seen[$0]++' >"$work/order"
    while IFS= read -r file; do
        cp "$modules/$file" "$out/modules/$release/"
        echo "${file##*/}"
    done <"$work/order" >"$out/modules/$release/order"
    pack "$dir/modules-$release.cpio" "$out"
}

build_rig()
{
    with_busybox "$work/rig"
    cp "$here/initramfs-rig.init" "$work/rig/init"
    chmod 755 "$work/rig/init"
    pack "$dir/rig-base.cpio" "$work/rig"
}

build_guest()
{
    out=$work/guest
    with_busybox "$out"
    cp "$tools/usr/bin/hackbench" "$out/bin/"
    with_libraries "$out" "$tools/usr/bin/hackbench"
    "${CC:-cc}" -std=gnu11 -O2 -Wall -Wextra -Werror -static -o "$out/bin/machine" \
        "$here/guest-linux/machine.c" || die "cannot compile guest-linux/machine.c"
    strip "$out/bin/machine"
    cp "$here/guest-linux/init" "$out/init"
    chmod 755 "$out/init"
    pack "$dir/guest-linux.cpio" "$out"
}

work=$(mktemp -d "$dir/work.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

script=$here/initramfs.sh
newer "$dir/modules-$release.cpio" "$script" "$dir/vmlinuz-$release" || build_modules
newer "$dir/rig-base.cpio" "$script" "$busybox" "$here/initramfs-rig.init" || build_rig
newer "$dir/guest-linux.cpio" "$script" "$here/guest-linux" || build_guest
