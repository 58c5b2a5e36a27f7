#!/bin/sh
# SPDX-License-Identifier: MIT
#
# usage: check-freestanding.sh [ARCHIVE...]
#
# Proves that libvapic and libvapic-silicon need nothing but a C compiler, in TAP. ARCHIVE is a
# built archive of theirs; beside it the sources are compiled again as a kernel would, by gcc and by
# clang.
#
# What the library may leave undefined: memcpy, memset, memmove and memcmp, which a freestanding
# compiler may call on its own account and every embedder has; and _GLOBAL_OFFSET_TABLE_, which
# the linker makes for position-independent code. Nothing of libgcc either: kernels do not link
# it, so the library must not, for example, divide 128-bit numbers.
set -u
root=$(cd "$(dirname "$0")/.." && pwd) || exit 2
archives=
for archive; do
    archives="$archives $(realpath "$archive")"
done
cd "$root" || exit 2
. tools/tap.sh

work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT

warnings="-Wall -Wextra -Werror"
kernel="-mgeneral-regs-only -mno-red-zone -mcmodel=kernel -fno-pic -fno-pie"
allowed='^(memcpy|memset|memmove|memcmp|_GLOBAL_OFFSET_TABLE_)$'

# empty WHAT: succeeds when standard input is empty, else prints it under WHAT.
empty()
{
    found=$(cat)
    [ -z "$found" ] && return 0
    printf '%s:\n%s\n' "$1" "$found"
    return 1
}

# compile CC ROOM DIR FLAG...: every source of a room into DIR.
compile()
{
    cc=$1 room=$2 dir=$3
    shift 3
    mkdir -p "$dir"
    find "$room" -name '*.c' | sort | while read -r source; do
        object=$dir/$(echo "$source" | tr / _).o
        # shellcheck disable=SC2086  # a list of words on purpose
        $cc -std=c11 -O2 -ffreestanding $warnings "$@" -Iinclude -I"$room" -c "$source" \
            -o "$object" || exit 1
    done
}

# undefined FILE...: symbols that no member of FILE defines and that are not allowed.
undefined()
{
    ld -r -o "$work/whole.o" --whole-archive "$@" || return 1
    nm -u "$work/whole.o" | awk '{ print $NF }' | grep -Ev "$allowed" |
        empty "undefined symbols that an embedder would have to provide"
}

# foreign FILE...: global names that could collide with an embedder's.
foreign()
{
    nm -g --defined-only "$@" | awk 'NF == 3 && $3 !~ /^vapic_/ { print $3 }' |
        empty "global symbols without the prefix vapic_"
}

# mutable FILE...: data that is neither constant nor the caller's.
mutable()
{
    nm "$@" | awk '$2 ~ /^[bBcCdDsSgG]$/' | empty "mutable data"
}

# floating FILE...: instructions that use vector or x87 registers.
floating()
{
    objdump -d --no-show-raw-insn "$@" | grep -E '%(xmm|ymm|zmm|mm[0-7]|st)' | head -n 5 |
        empty "vector or floating-point instructions"
}

# consumer CC ARCHIVE: a program without libc that uses the library must link, and run.
consumer()
{
    $1 -std=c11 -O2 -ffreestanding -nostdlib -static -fno-pic -fno-stack-protector \
        -Wall -Wextra -Werror -Iinclude tests/freestanding/consumer.c "$2" \
        -o "$work/consumer" || return 1
    "$work/consumer" || {
        echo "the consumer ended with status $?"
        return 1
    }
}

for archive in $archives; do
    check "$(basename "$archive") leaves nothing undefined" undefined "$archive"
done

# kernel_room CC ROOM: the room as a kernel would build it.
kernel_room()
{
    dir=$work/$1-$2-kernel
    check "$1 builds $2/ with kernel flags" compile "$1" "$2" "$dir" $kernel
    ar rcs "$dir.a" "$dir"/*.o 2>/dev/null
    check "$1 kernel build of $2/ leaves nothing undefined" undefined "$dir.a"
    check "$1 kernel build of $2/ defines vapic_ symbols only" foreign "$dir"/*.o
    check "$1 kernel build of $2/ has no mutable data" mutable "$dir"/*.o
    check "$1 kernel build of $2/ has no vector code" floating "$dir"/*.o
}

for cc in gcc clang; do
    kernel_room $cc src
    kernel_room $cc silicon
    check "$cc builds src/ without position independence" compile $cc src "$work/$cc-plain" -fno-pic
    ar rcs "$work/$cc-plain.a" "$work/$cc-plain"/*.o 2>/dev/null
    check "$cc: a consumer links without libc and runs" consumer $cc "$work/$cc-plain.a"
done
check "no room includes what it may not" python3 tools/check-includes.py
tap_end
