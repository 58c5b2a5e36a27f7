#!/bin/sh
# SPDX-License-Identifier: MIT
#
# What `vapic` says to wrong arguments, files and hosts, in TAP: one line on standard error that
# says what is wrong and what to do, and exit status 2. PROGRAM is the built command.
#
#   tests/test_cli.sh PROGRAM

set -eu

program=$1
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../tools/tap.sh"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# refused TEXT ARG...: the command refuses these arguments in one line that has TEXT in it.
refused()
{
    text=$1
    shift
    status=0
    "$program" "$@" </dev/null >"$work/out" 2>"$work/err" || status=$?
    [ "$status" = 2 ] || { echo "status $status, not 2"; cat "$work/err"; return 1; }
    [ ! -s "$work/out" ] || { echo "standard output is not empty"; return 1; }
    [ "$(wc -l <"$work/err")" = 1 ] || { echo "not one line:"; cat "$work/err"; return 1; }
    grep -qF -- "$text" "$work/err" || { echo "no '$text' in:"; cat "$work/err"; return 1; }
}

# prints TEXT ARG...: the command succeeds, with TEXT on standard output.
prints()
{
    text=$1
    shift
    "$program" "$@" >"$work/out" 2>"$work/err" || { cat "$work/err"; return 1; }
    grep -qF -- "$text" "$work/out" || { echo "no '$text' in:"; cat "$work/out"; return 1; }
}

# usage: without a command it explains itself, and fails.
explains_itself()
{
    status=0
    "$program" 2>"$work/err" || status=$?
    [ "$status" = 2 ] && grep -q '^Usage: vapic COMMAND' "$work/err"
}

: >"$work/empty"
echo text >"$work/text"
printf 'MZ' >"$work/short"
mkdir "$work/directory"
# A setup header that announces more than the file holds: 'HdrS', protocol 2.15, 64-bit, high.
{
    head -c 497 /dev/zero
    printf '\002\000\000\000\377\377\000\000\000\000\000\000\000\125\252\353\146HdrS\017\002'
    head -c 9 /dev/zero
    printf '\001'
    head -c 36 /dev/zero
    printf '\003\000'
    head -c 1500 /dev/zero
} >"$work/cut"

check 'no command' explains_itself
check 'help' prints 'run' --help
check 'version' prints 'vapic ' --version
check 'help of run' prints '--engine' run --help
check 'unknown command' refused "no command 'frob'" frob
check 'no such kernel' refused 'cannot open' run --kernel "$work/nothing"
check 'kernel is a directory' refused 'no regular file' run --kernel "$work/directory"
check 'kernel is empty' refused 'is empty' run --kernel "$work/empty"
check 'kernel is no kernel' refused 'neither a Linux bzImage nor a multiboot' run "$work/text"
check 'kernel is two bytes' refused 'neither a Linux bzImage nor a multiboot' run "$work/short"
check 'kernel is cut off' refused 'truncated' run "$work/cut"
check 'two kernels' refused 'name one' run "$work/text" "$work/text"
check 'no such initrd' refused '--initrd: cannot open' \
    run --kernel "$work/cut" --initrd "$work/nothing"
check 'initrd without kernel' refused '--initrd: the built-in guest' run --initrd "$work/text"
check 'no such acceleration' refused "--accel: no 'avic2': give one of none, avic," \
    run --accel avic2
check 'inhibition without period' refused 'has no period: give REASON@PERIOD' \
    run --accel avic --inhibit BLOCKIRQ
check 'no such inhibition' refused "no reason 'BLOCK': give one of DISABLED" \
    run --accel avic --inhibit BLOCK@10ms
check 'inhibition too often' refused "period '1us' is out of range" \
    run --accel avic --inhibit BLOCKIRQ@1us
check 'inhibition twice' refused 'BLOCKIRQ is named twice' \
    run --accel avic --inhibit BLOCKIRQ@1ms --inhibit BLOCKIRQ@2ms
check 'no such irqchip' refused "no 'split': give one of vapic, kernel" run --irqchip split
check 'modelled hardware on KVM irqchip' refused '--irqchip kernel: ' \
    run --irqchip kernel --accel avic
check 'modelled hardware between irqchips' refused '--switch-irqchip: ' \
    run --switch-irqchip 10ms --accel avic
check 'switch without period' refused "'often' is no period" run --switch-irqchip often
check 'switch no times' refused "'0' is no number of times" run --switch-irqchip 10ms,0
check 'too many for KVM irqchip' refused 'address 255 processors, not 256' \
    run --irqchip kernel --cpus 256
check 'nothing to inhibit' refused '--inhibit: there is no acceleration' run --inhibit SEV@10ms
if ! grep -qwE 'avic|apicv' /proc/cpuinfo; then
    check 'nothing to inhibit on this processor' refused 'this processor has neither' \
        run --engine rig --accel auto --inhibit SEV@10ms
fi
check 'inhibition that the hardware does not know' refused \
    '--accel apicv goes on in spite of PIT_REINJ' run --accel apicv --inhibit PIT_REINJ@10ms
check 'no period of moves' refused "--pause-vcpu: 'soon' is no period" \
    run --accel avic --pause-vcpu soon
check 'nothing to move between' refused '--pause-vcpu: there are no modelled processors' \
    run --pause-vcpu 10ms
check 'one trace of many runs' refused '--trace: one file cannot take all runs' \
    run --accel all --trace "$work/trace"
check 'no processors' refused '--cpus' run --cpus 0
check 'negative processors' refused '--cpus' run --cpus -1
check 'no number of processors' refused '--cpus' run --cpus 4x
check 'too many processors' refused 'from 1 to 4096' run --cpus 4097
check 'too many for xAPIC' refused 'use --apic x2apic' run --cpus 256 --apic xapic
check 'no size' refused '--mem' run --mem lots
check 'unknown suffix' refused '--mem' run --mem 1X
check 'size beyond 64 bits' refused '--mem' run --mem 99999999999999999999
check 'size beyond 64 bits by suffix' refused '--mem' run --mem 99999999999999T
check 'too little memory' refused 'at least 2M' run --mem 1M
check 'too much memory' refused 'at most 64T' run --mem 65T
check 'memory in odd bytes' refused 'multiple of 4 KiB' run --mem 5000001
check 'unknown APIC mode' refused 'auto, xapic, x2apic' run --apic yes
check 'unknown timer' refused 'auto, tsc-deadline, oneshot' run --timer pit
check 'unknown engine' refused 'auto, kvm, rig' run --engine tcg
check 'unknown form of statistics' refused 'text, json, none' run --stats xml
check 'unknown silicon' refused 'none, avic, avic-noipiv, x2avic, apicv, apicv-ipiv, auto, all' \
    run --accel amd
check 'inhibition without silicon' refused '--inhibit: there is no acceleration' \
    run --inhibit BLOCKIRQ@10ms
check 'inhibition of no silicon' refused '--inhibit: there is no acceleration' \
    run --accel none --inhibit BLOCKIRQ@10ms
check 'inhibition without a period' refused 'give REASON@PERIOD' \
    run --accel avic --inhibit BLOCKIRQ
check 'inhibition without a reason' refused "--inhibit: no reason ''" \
    run --accel avic --inhibit @10ms
check 'inhibition for an unknown reason' refused "no reason 'MOOD': give one of DISABLED" \
    run --accel avic --inhibit MOOD@10ms
check 'inhibition for a reason of single vCPUs' refused "--inhibit: no reason 'NESTED'" \
    run --accel avic --inhibit NESTED@10ms
check 'inhibition for one reason twice' refused 'BLOCKIRQ is named twice' \
    run --accel avic --inhibit BLOCKIRQ@10ms --inhibit BLOCKIRQ@1s
for period in '' ms 10min -1ms 1.5ms; do
    check "inhibition with the period '$period'" refused 'give a number with us, ms or s' \
        run --accel apicv --inhibit "BLOCKIRQ@$period"
done
for period in 0ms 99us 3601s 99999999999999999999s; do
    check "inhibition with the period $period" refused '--inhibit: ' \
        run --accel apicv --inhibit "BLOCKIRQ@$period"
done
check 'pause without silicon' refused '--pause-vcpu: there are no modelled processors' \
    run --pause-vcpu 10ms
check 'pause without a period' refused '--pause-vcpu:' run --accel avic --pause-vcpu often
check 'pause with a short period' refused 'from 100us to 3600s' run --accel avic --pause-vcpu 1us
check 'one trace of all runs' refused '--trace: one file cannot take all runs' \
    run --accel all --trace "$work/trace"
check 'command line too long' refused '--append' \
    run --append "$(head -c 40000 /dev/zero | tr '\0' x)"
check 'trace cannot be written' refused '--trace: cannot write' \
    run --engine kvm --trace "$work/directory/no/file"

printf '0 rd 0x80\n0 fly\n' >"$work/prog"
printf '```rule\ncolour: red\n```\n' >"$work/rules"
check 'diff: unknown mode' refused "--accel: no 'sse'" diff --accel sse
check 'diff: number' refused "--ops: '1e6' is no number" diff --ops 1e6
check 'diff: too many processors' refused "--cpus: '9' is no number from 1 to 8" diff --cpus 9
check 'diff: argument' refused 'given with --program' diff "$work/prog"
check 'diff: no program' refused '--program' diff --program "$work/none"
check 'diff: bad program' refused 'prog:2: there is no such operation' diff --program "$work/prog"
check 'diff: no list' refused '--known' diff --known "$work/none"
check 'diff: bad list' refused 'rules:2: no line of a rule' diff --known "$work/rules"
check 'diff: a random program' prints '# seed 7, program 3' \
    diff --print --seed 7 --first 3 --ops 1
tap_end
