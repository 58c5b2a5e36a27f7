#!/bin/sh
# SPDX-License-Identifier: MIT
#
# usage: run-linux.sh BUILD-DIRECTORY [VAPIC-RUN-OPTION...]
#
# `make run`: Debian's stock cloud kernel with four processors in x2APIC mode, all of its interrupts
# through libvapic, to a small system that prints /proc/interrupts, loads the machine with
# interrupts, checks that they arrived, says so and powers off. The statistics follow. The exit
# status is 0 only if the guest came to that end by itself and said so.
set -eu
cd "$(dirname "$0")/.."

build=$1
shift
log=$build/run-linux.log
{
    status=0
    "$build/cli/vapic" run \
        --kernel build/deps/vmlinuz --initrd build/deps/guest-linux.cpio \
        --append "console=ttyS0 panic=-1 vapic.cpus=4 vapic.apic=x2apic" \
        --cpus 4 --mem 512M --apic x2apic --stats text "$@" || status=$?
    echo "$status" >"$log.status"
} | tee "$log"

status=$(cat "$log.status")
[ "$status" -eq 0 ] || {
    echo "run-linux: vapic run ended with status $status (the console is in $log)" >&2
    exit "$status"
}
grep -q '^vapic-success' "$log" || {
    echo "run-linux: the guest powered off without reporting success (its console is in $log)" >&2
    exit 1
}
