#!/bin/sh
# SPDX-License-Identifier: MIT
#
# usage: check-long.sh DIR
#
# Tests that take too long for `make test`; DIR is the finished build. Ends like it with a line
# `N passed, N failed`, and says how long each test took.
#
#   equiv       ten million operations of a guest on each kind of modelled silicon and on the library
#               alone, side by side (tests/equiv.h), with the counts that this must reach
#   linux-288   Debian's kernel brings up 288 processors in x2APIC mode: more than an 8-bit APIC ID
#               can name, so the extended destination ID of MSIs and I/O APIC entries is needed
set -u
cd "$(dirname "$0")/.." || exit 2
. tools/tap.sh

build=$1
results=build/results-long
rm -rf "$results"
mkdir -p "$results"

# linux_288: success is what the guest reports after it has counted its processors. All but four
# come up by hot-plug: while it boots, Linux lets every idle processor tick, and 288 of them are
# more than an emulator keeps up with.
linux_288()
{
    log=$results/linux-288.log
    timeout 5400 "$build/cli/vapic" run \
        --kernel build/deps/vmlinuz --initrd build/deps/guest-linux.cpio \
        --append "console=ttyS0 quiet panic=-1 maxcpus=4 nowatchdog vapic.hotplug \
                  vapic.cpus=288 vapic.apic=x2apic vapic.load=0" \
        --cpus 288 --mem 1G --apic x2apic --stats text >"$log" 2>&1 </dev/null
    status=$?
    grep -q '^vapic-success' "$log" && [ "$status" -eq 0 ] && return 0
    tail -n 40 "$log"
    echo "vapic run ended with status $status; the console is in $log"
    return 1
}

# timed TITLE COMMAND: a test whose duration is part of its report.
timed()
{
    start=$(date +%s)
    check "$@"
    echo "# $1: $(($(date +%s) - start)) s"
}

start=$(date +%s)
"$build/tests/equiv" --long >"$results/equiv.tap"
cat "$results/equiv.tap"
echo "# equivalence: $(($(date +%s) - start)) s"

{
    timed "Linux comes up with 288 processors in x2APIC mode" linux_288
    tap_end
} | tee "$results/long.tap"
exec python3 tools/tally.py "$results"
