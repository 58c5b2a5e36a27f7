#!/bin/sh
# SPDX-License-Identifier: MIT
#
# usage: fuzz.sh run SECONDS [TARGET...]     fuzz each target for so long, print a table
#        fuzz.sh share                       a fixed number of runs with a fixed seed, as TAP
#        fuzz.sh coverage [TARGET...]        lines that the corpora cover, by the sources' profile
#        fuzz.sh afl SECONDS [TARGET...]     the same targets under AFL++
#        fuzz.sh corpus [TARGET...]          rewrite the committed corpora from what was found
#
# Targets are the files fuzz/target_*.c; without any on the command line all are meant. What a run
# adds to a corpus stays in build/fuzz-corpus/TARGET, findings go to build/fuzz-findings (of the
# share to build/fuzz-share-findings) and stay until you delete them. Exit
# status 1: there is a finding. A finding is repeated by `build/fuzz/fuzz/fuzz-TARGET FILE`.
set -u
cd "$(dirname "$0")/.." || exit 2

corpus=build/fuzz-corpus
findings=build/fuzz-findings
export ASAN_OPTIONS=detect_stack_use_after_return=1:strict_string_checks=1
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1

# The sanitizers cannot map their shadow where the kernel randomizes too many address bits.
fixed_layout=
if setarch -R true 2>/dev/null; then
    fixed_layout="setarch -R"
fi

all_targets()
{
    for file in fuzz/target_*.c; do
        name=${file#fuzz/target_}
        echo "${name%.c}"
    done
}

# target: longest input, runs of the fixed share
settings()
{
    case $1 in
    guest) echo 776 4000 ;;
    linux) echo 8192 100000 ;;
    multiboot) echo 4096 300000 ;;
    devices) echo 512 60000 ;;
    state) echo 256 50000 ;;
    *) echo 512 120000 ;;
    esac
}

build()
{
    mkdir -p build
    TARGETS=fuzz-targets CC=clang CXX=clang++ sh tools/build.sh build/fuzz \
        -Dfuzz_engine=-fsanitize=fuzzer -Dcommand=false -Doptimization=2 -Dwerror=false \
        -Db_sanitize=address,undefined -Db_lundef=false \
        '-Dc_args=-fsanitize=fuzzer-no-link -fno-sanitize-recover=all -fno-omit-frame-pointer' \
        >build/fuzz.log 2>&1 || {
        tail -n 40 build/fuzz.log
        exit 2
    }
}

# run_target NAME OPTION...: the committed corpus is read, what is new goes to the scratch corpus.
run_target()
{
    name=$1
    shift
    # shellcheck disable=SC2046  # words on purpose
    set -- $(settings "$name" | cut -d' ' -f1) "$@"
    length=$1
    shift
    mkdir -p "$corpus/$name" "$findings/$name"
    $fixed_layout build/fuzz/fuzz/fuzz-"$name" -max_len="$length" -timeout=10 -rss_limit_mb=3072 \
        -print_final_stats=1 -print_funcs=0 -artifact_prefix="$findings/$name/" "$@" \
        >"build/fuzz-$name.log" 2>&1
}

# executions NAME, edges NAME: from the log of the last run
executions()
{
    sed -n 's/^stat::number_of_executed_units: *//p' "build/fuzz-$1.log" | tail -n 1
}

per_second()
{
    sed -n 's/^stat::average_exec_per_sec: *//p' "build/fuzz-$1.log" | tail -n 1
}

edges()
{
    all=$(sed -n 's/.*Loaded 1 modules *(\([0-9]*\) inline.*/\1/p' "build/fuzz-$1.log")
    hit=$(sed -n 's/^#.* cov: \([0-9]*\) .*/\1/p' "build/fuzz-$1.log" | tail -n 1)
    echo "${hit:-0}/${all:-0}"
}

# found NAME: how many findings are newer than this run
found()
{
    find "$findings/$1" -type f -newer build/fuzz-start 2>/dev/null | wc -l
}

# Nothing is deleted that nobody may have seen.
name_earlier()
{
    earlier=$(find "$findings" -type f 2>/dev/null | wc -l)
    [ "$earlier" -eq 0 ] ||
        echo "$findings has $earlier earlier findings: delete them when they are dealt with"
    touch build/fuzz-start
}

report_crash()
{
    [ "$1" -eq 0 ] && return
    grep -aE 'ERROR|runtime error|^\.\./\.\./|fuzz/|    #[0-9]+ .*/(src|silicon|vmm|fuzz)/' \
        "build/fuzz-$2.log" | head -n 20
}

fuzz_run()
{
    seconds=$1
    shift
    status=0
    build
    name_earlier
    printf '%-10s %12s %9s %13s %9s\n' target executions exec/s edges findings
    for name in "$@"; do
        run_target "$name" -max_total_time="$seconds" "$corpus/$name" "fuzz/corpus/$name"
        result=$?
        printf '%-10s %12s %9s %13s %9s\n' "$name" "$(executions "$name")" "$(per_second "$name")" \
            "$(edges "$name")" "$(found "$name")"
        report_crash "$result" "$name"
        [ "$result" -eq 0 ] || status=1
    done
    [ "$status" -eq 0 ] ||
        echo "repeat a finding: build/fuzz/fuzz/fuzz-TARGET $findings/TARGET/FILE"
    return "$status"
}

# A share of each, the same every time: no scratch corpus takes part.
fuzz_share()
{
    . tools/tap.sh
    build
    findings=build/fuzz-share-findings
    for name in $(all_targets); do
        check "fuzz $name" share_of "$name"
    done
    tap_end
}

share_of()
{
    runs=$(settings "$1" | cut -d' ' -f2)
    rm -rf "build/fuzz-share/$1"
    mkdir -p "build/fuzz-share/$1" # the first directory is where new inputs go
    run_target "$1" -seed=1 -runs="$runs" "build/fuzz-share/$1" "fuzz/corpus/$1"
    result=$?
    echo "$(executions "$1") executions, $(edges "$1") edges"
    report_crash "$result" "$1"
    return "$result"
}

# The corpora through a build that counts lines; libraries only, not the fuzz targets themselves.
fuzz_coverage()
{
    dir=build/fuzz-coverage
    TARGETS=fuzz-targets CC=clang sh tools/build.sh "$dir" -Dcommand=false -Dwerror=false \
        '-Dc_args=-fprofile-instr-generate -fcoverage-mapping' \
        -Dc_link_args=-fprofile-instr-generate >build/fuzz-coverage.log 2>&1 || {
        tail -n 40 build/fuzz-coverage.log
        exit 2
    }
    printf '%-10s %9s %14s  %s\n' target inputs 'lines' 'of'
    for name in "$@"; do
        coverage_of "$name"
    done
}

coverage_of()
{
    program=$dir/fuzz/fuzz-$1
    profile=$dir/$1.profraw
    case $1 in
    apicv) sources='silicon/(apicv|iommu_vtd|machine)' ;;
    avic) sources='silicon/(avic|iommu_amd|machine)' ;;
    devices) sources='vmm/(bus|dev_)' ;;
    guest) sources='(src|silicon)/' ;;
    ioapic) sources='src/(ioapic|gsi)' ;;
    lapic) sources='src/(lapic|fabric|pv|vm|regs|state)' ;;
    linux) sources='vmm/load_linux' ;;
    multiboot) sources='vmm/load_(elf|multiboot)' ;;
    state) sources='src/(state|ioapic_state)' ;;
    esac
    mkdir -p "$corpus/$1"
    LLVM_PROFILE_FILE=$profile "$program" "fuzz/corpus/$1" "$corpus/$1" >"$dir/$1.log" 2>&1
    llvm-profdata merge -o "$dir/$1.profdata" "$profile"
    llvm-cov export -summary-only -instr-profile "$dir/$1.profdata" "$program" |
        python3 -c '
import json, re, sys
files = [f for f in json.load(sys.stdin)["data"][0]["files"]
         if re.search("/" + sys.argv[2], f["filename"])]
lines = [f["summary"]["lines"] for f in files]
covered, count = sum(l["covered"] for l in lines), sum(l["count"] for l in lines)
print("%-10s %9s %6d/%d %3d%%  %s" % (sys.argv[1], sys.argv[3], covered, count,
                                    100 * covered // max(count, 1), sys.argv[2]))
' "$1" "$sources" "$(find "fuzz/corpus/$1" "$corpus/$1" -type f | wc -l)"
}

# keep_afl NAME: what AFL++ found goes to the other findings, before its directory is used again.
keep_afl()
{
    find "build/fuzz-afl-out/$1" -type f -path '*/default/[ch]*s/id:*' 2>/dev/null |
        while read -r file; do
            mkdir -p "$findings/$1"
            cp "$file" "$findings/$1/afl-$(sha1sum <"$file" | cut -c1-16)"
        done
}

# AFL++ has a directory of its own; it wants at least one input, and no core pattern handler.
fuzz_afl()
{
    seconds=$1
    shift
    status=0
    unset ASAN_OPTIONS UBSAN_OPTIONS # it wants them its own way
    command -v afl-fuzz >/dev/null || {
        echo "fuzz.sh: there is no afl-fuzz: apt-get install afl++" >&2
        exit 2
    }
    TARGETS=fuzz-targets CC=afl-clang-fast CXX=afl-clang-fast++ AFL_QUIET=1 \
        sh tools/build.sh build/fuzz-afl -Dfuzz_engine=-fsanitize=fuzzer -Dcommand=false \
        -Doptimization=2 -Dwerror=false >build/fuzz-afl.log 2>&1 || {
        tail -n 40 build/fuzz-afl.log
        exit 2
    }
    printf '%-10s %12s %9s %9s\n' target executions exec/s findings
    for name in "$@"; do
        out=build/fuzz-afl-out/$name
        keep_afl "$name"
        rm -rf "$out"
        mkdir -p "$out"
        AFL_SKIP_CPUFREQ=1 AFL_I_DONT_CARE_ABOUT_MISSING_CRASHES=1 AFL_NO_UI=1 AFL_NO_AFFINITY=1 \
            AFL_NO_STARTUP_CALIBRATION=1 $fixed_layout afl-fuzz -V "$seconds" \
            -G "$(settings "$name" | cut -d' ' -f1)" -i "fuzz/corpus/$name" -o "$out" \
            -- build/fuzz-afl/fuzz/fuzz-"$name" >"build/fuzz-afl-$name.log" 2>&1
        stats=$out/default/fuzzer_stats
        [ -f "$stats" ] || {
            tail -n 5 "build/fuzz-afl-$name.log"
            status=1
            continue
        }
        crashes=$(find "$out/default/crashes" "$out/default/hangs" -name 'id:*' | wc -l)
        [ "$crashes" -eq 0 ] || status=1
        keep_afl "$name"
        printf '%-10s %12s %9s %9s\n' "$name" "$(afl_stat execs_done)" "$(afl_stat execs_per_sec)" \
            "$crashes"
    done
    return "$status"
}

afl_stat()
{
    sed -n "s/^$1 *: *//p" "$stats"
}

# A small corpus for the repository: smallest inputs first, those that reach an edge that none
# before them reaches, of the committed and the scratch corpus. libFuzzer's control file lists just
# these.
fuzz_corpus()
{
    build
    for name in "$@"; do
        new=build/fuzz-merged/$name
        rm -rf "$new" "$new.kept" "$new.control" "$new.all"
        mkdir -p "$new" "$new.kept" "$corpus/$name" "fuzz/corpus/$name"
        # A copy: a run that is under way replaces files, and a merge never ends without them.
        cp -r "$corpus/$name" "$new.all"
        find "fuzz/corpus/$name" -name 'found-*' -exec cp '{}' "$new.kept" ';'
        run_target "$name" -merge=1 -merge_control_file="$new.control" "$new" \
            "fuzz/corpus/$name" "$new.all" || {
            tail -n 5 "build/fuzz-$name.log"
            exit 1
        }
        awk 'NR == 1 { count = $1 }
             NR > 2 && NR <= 2 + count { file[NR - 3] = $0 }
             $1 == "COV" && NF > 2 { print file[$2] }' "$new.control" |
            while read -r file; do
                cp "$file" "$new.kept/$(sha1sum <"$file" | cut -c1-16)"
            done
        rm -rf "fuzz/corpus/$name"
        mv "$new.kept" "fuzz/corpus/$name"
        echo "$name: $(find "fuzz/corpus/$name" -type f | wc -l) inputs," \
            "$(du -bs "fuzz/corpus/$name" | cut -f1) bytes"
    done
}

usage()
{
    sed -n '4,9s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

mode=${1-}
shift $(($# > 0))
case $mode in
run | afl)
    [ $# -ge 1 ] && [ "$1" -gt 0 ] 2>/dev/null || usage
    seconds=$1
    shift
    # shellcheck disable=SC2046
    [ $# -gt 0 ] || set -- $(all_targets)
    if [ "$mode" = run ]; then
        fuzz_run "$seconds" "$@"
    else
        fuzz_afl "$seconds" "$@"
    fi
    ;;
share)
    fuzz_share
    ;;
coverage | corpus)
    # shellcheck disable=SC2046
    [ $# -gt 0 ] || set -- $(all_targets)
    "fuzz_$mode" "$@"
    ;;
*)
    usage
    ;;
esac
