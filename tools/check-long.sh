#!/bin/sh
# SPDX-License-Identifier: MIT
#
# usage: check-long.sh DIR
#
# Tests that take too long for `make test`; DIR is the finished build. Ends like it with a line
# `N passed, N failed`, and says how long each test took.
#
#   linux-288   Debian's kernel brings up 288 processors in x2APIC mode: more than an 8-bit APIC ID
#               can name, so the extended destination ID of MSIs and I/O APIC entries is needed
#   check       every scenario of `vapic check` completely within its bound, for a minute under TSO,
#               and sampled, C11 too
#   mutants     every bug that can be put in is found, or argued
#   equiv       10 million random operations, with and without acceleration
#   nested-equiv   a million, with three levels
#   bochs       the silicon model against Bochs: the whole list of cases, and half a million random
#               ones beyond it
#   rig-long    guests on modelled silicon: all combinations of mode, APIC and timer, storms of
#               100 000 messages under toggles and moves, Linux under toggles and moves, reboots;
#               Linux in turns on KVM's own APIC, with the host kernels of Debian 12, 13 and sid;
#               `vapic diff`: a million operations in each mode on each of these
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

boots_288()
{
    check "Linux comes up with 288 processors in x2APIC mode" linux_288
    tap_end
}

check_long()
{
    sh tools/check-share.sh "$build" "$results" --long
}

mutants_long()
{
    "$build/cli/vapic" check --mutants --json >"$results/mutants-named.document"
    "$build/cli/vapic" check --mutants --mechanical --json >"$results/mutants-places.document"
    python3 tools/mutants-tap.py "$results"/mutants-*.document
}

# A program that stops before its plan is a failure of its own: tools/tally.py.
equiv_long()
{
    "$build/tests/equiv" --long || echo "Bail out! exit status $?"
}

nested_equiv_long()
{
    "$build/tests/nested_equiv" --long || echo "Bail out! exit status $?"
}

# Without the other suites' kernels their rows fail, and say which command fetches them.
rig_long()
{
    for suite in trixie sid; do
        sh tools/deps.sh --suite "$suite" >&2 || true
    done
    tests/rig/run --long "$build"
}

bochs_long()
{
    tests/bochs/run --more 500000 "$build"
}

# timed NAME COMMAND: prints TAP, keeps it for tools/tally.py, and says how long it took.
timed()
{
    echo "== $1"
    start=$(date +%s)
    "$2" 2>"$results/$1.errors" | tee "$results/$1.tap"
    [ -s "$results/$1.tap" ] || tail -n 20 "$results/$1.errors"
    echo "# $1: $(($(date +%s) - start)) s"
}

timed linux-288 boots_288
timed check check_long
timed mutants mutants_long
timed equiv equiv_long
timed nested-equiv nested_equiv_long
timed bochs bochs_long
timed rig-long rig_long
exec python3 tools/tally.py "$results"
