#!/bin/sh
# SPDX-License-Identifier: MIT
#
# `vapic check` as a command, in TAP: its refusals, its lists, a counterexample as text, picture and
# replay line, documents, shards and their merging. PROGRAM is the built `vapic`; what it explores
# is for other tests.
#
#   tests/test_check_cli.sh PROGRAM

set -eu

program=$1
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../tools/tap.sh"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# A scenario that is explored completely in a moment, and a bug that breaks it.
small='post-to-sleeper --accel none'
bug='--mutant BLOCK_ANNOUNCED_LATE'

# run STATUS ARG...: the command ends with STATUS; its output is in $work/out and $work/err.
run()
{
    wanted=$1
    shift
    status=0
    "$program" check "$@" </dev/null >"$work/out" 2>"$work/err" || status=$?
    [ "$status" = "$wanted" ] && return 0
    echo "status $status, not $wanted, of: vapic check $*"
    tail -n 20 "$work/out" "$work/err"
    return 1
}

# refused TEXT ARG...: these arguments are refused in one line that has TEXT in it.
refused()
{
    text=$1
    shift
    run 2 "$@" || return 1
    [ ! -s "$work/out" ] || { echo "standard output is not empty"; return 1; }
    [ "$(wc -l <"$work/err")" = 1 ] || { echo "not one line:"; cat "$work/err"; return 1; }
    grep -qF -- "$text" "$work/err" || { echo "no '$text' in:"; cat "$work/err"; return 1; }
}

# prints STATUS TEXT ARG...: the command ends so, with TEXT on standard output, errors nowhere.
prints()
{
    wanted=$1
    text=$2
    shift 2
    run "$wanted" "$@" || return 1
    [ ! -s "$work/err" ] || { echo "standard error:"; cat "$work/err"; return 1; }
    grep -qF -- "$text" "$work/out" || { echo "no '$text' in:"; cat "$work/out"; return 1; }
}

# merges_mutants: three shards of two mutants, one of them empty, say what one run says.
merges_mutants()
{
    for n in 1 2 3; do
        run 0 --mutants --only 'BLOCK_*' --json --shard $n/3 || return 1
        cp "$work/out" "$work/mutants$n"
    done
    run 0 $small --schedules 9 --json && cp "$work/out" "$work/one"
    prints 0 '2 mutants: 2 killed' --merge "$work/mutants2" "$work/mutants1" "$work/mutants3"
}

# judges STATUS TEXT MEMBERS [WRONG]: what is said of a document of one mutant with these members.
found='"killed": true, "scenario": "s", "accel": "none", "memory": "sc", "property": "lost"'
judges()
{
    cat >"$work/judged" <<END
{"vapic_mutants": 1, "mechanical": true, "seconds": 0, "shard": {"index": 1, "count": 1},
 "wrong_arguments": [${4:-}], "mutants": [{"mutant": "order:x.c:f+1", "kind": "order",
 "text": "the order is relaxed", "schedules": 1, "seconds": 1, $3}]}
END
    run "$1" --merge "$work/judged" || return 1
    grep -qF -- "$2" "$work/out" || { echo "no '$2' in:"; cat "$work/out"; return 1; }
}

# holds EXPRESSION: it is true of the document $work/out, called d.
holds()
{
    python3 -c 'import json, sys
d = json.load(open(sys.argv[1]))
if not eval("(" + sys.argv[2] + ")"):
    sys.exit("not so: " + sys.argv[2] + "\n" + json.dumps(d.get("totals", d))[:800])' \
        "$work/out" "$1"
}

# What two runs have in common: everything but the time that they took.
timeless()
{
    sed '/"seconds"/d' "$1"
}

# ---- Where the program is ----

in_help()
{
    "$program" --help | grep -q '^  check '
}

absent()
{
    cp "$program" "$work/vapic"
    status=0
    "$work/vapic" check all >"$work/out" 2>"$work/err" || status=$?
    rm "$work/vapic"
    [ "$status" = 2 ] && [ "$(wc -l <"$work/err")" = 1 ] &&
        grep -q "no program 'vapic-check'" "$work/err"
}

# ---- Lists ----

lists_scenarios()
{
    run 0 --list --json &&
        holds 'len(d["scenarios"]) >= 40' &&
        holds 'len({s["name"] for s in d["scenarios"]}) == len(d["scenarios"])' &&
        holds 'all(s["text"] and s["modes"] for s in d["scenarios"])' &&
        holds '{m for s in d["scenarios"] for m in s["modes"]} ==
               {"none", "avic", "avic-noipiv", "x2avic", "apicv", "apicv-ipiv"}'
}

lists_some()
{
    run 0 --list --json 'post-*' &&
        holds 'd["scenarios"] and all(s["name"].startswith("post-") for s in d["scenarios"])'
}

lists_properties()
{
    run 0 --list-properties --json && holds '"asleep" in {p["name"] for p in d["properties"]}'
}

# Every race that is written down has a scenario, and every scenario's races are written down.
covers_the_races()
{
    run 0 --list-races --json || return 1
    sed -n 's/^| \([A-Z][0-9]*\) |.*/\1/p' "$here/../docs/races.md" | sort >"$work/written"
    python3 -c 'import json, sys
print("\n".join(json.load(open(sys.argv[1]))["races"]))' "$work/out" | sort >"$work/covered"
    [ -s "$work/written" ] && diff "$work/written" "$work/covered"
}

# ---- Exploring ----

completes()
{
    run 0 $small --json &&
        holds 'd["totals"]["explored"] == d["totals"]["complete"] == 1' &&
        holds 'd["results"][0]["extent"] == "complete" and d["results"][0]["schedules"] > 10'
}

repeats()
{
    run 0 'post-*' --accel none,apicv --bound 1 --json -j 1 && timeless "$work/out" >"$work/one" &&
        run 0 'post-*' --accel none,apicv --bound 1 --json -j 2 &&
        timeless "$work/out" >"$work/two" && cmp "$work/one" "$work/two"
}

samples()
{
    run 0 $small --seed 7 --schedules 50 --json &&
        holds 'd["results"][0]["extent"] == "sampled" and d["results"][0]["schedules"] == 50'
}

stops()
{
    run 0 $small --schedules 5 --json && holds 'd["results"][0]["extent"] == "stopped"'
}

times_out()
{
    run 1 all --timeout 0.3 && grep -q 'not everything was explored' "$work/err" &&
        grep -q 'NOT DONE' "$work/out"
}

# Progress is for terminals: `script` is one.
shows_progress()
{
    script -qefc "$program check 'post-*' --accel avic,apicv --bound 2" "$work/terminal" \
        >/dev/null </dev/null
    grep -q 'done, .* schedules, .*/s' "$work/terminal" || { cat "$work/terminal"; return 1; }
}

# ---- A counterexample ----

breaks()
{
    COLUMNS=$1 run 1 $small $bug || return 1
    for text in 'vCPU 0' 'device' 'v0.presence' 'lapic_run.c:' 'BROKEN  asleep: '; do
        grep -qF "$text" "$work/out" || { echo "no '$text' in:"; cat "$work/out"; return 1; }
    done
    tail -n 2 "$work/out" | head -n 1 | grep -q '^BROKEN' || return 1
    ! grep -v '^replay' "$work/out" | sed '1,/^ step/d' | grep -E "^.{$(($1 + 1)),}"
}

# The last line, as it stands, breaks the same property.
replays()
{
    run 1 $small $bug || return 1
    line=$(sed -n 's/^replay  vapic //p' "$work/out")
    status=0
    eval "'$program' $line" >"$work/out" 2>"$work/err" || status=$?
    [ "$status" = 1 ] && grep -q '^BROKEN  asleep: ' "$work/out" || { cat "$work/out"; return 1; }
}

# Without the bug the same schedule does no harm.
replays_well()
{
    run 1 $small $bug --json || return 1
    schedule=$(python3 -c 'import json, sys
print(json.load(sys.stdin)["results"][0]["failure"]["schedule"])' <"$work/out")
    prints 0 'No property is broken' $small --replay "$schedule"
}

draws()
{
    run 1 $small $bug --svg "$work/picture.svg" &&
        python3 -c 'import sys, xml.etree.ElementTree as tree
text = "".join(tree.parse(sys.argv[1]).getroot().itertext())
for word in ("vCPU 0", "device", "BROKEN asleep", "--replay"):
    if word not in text:
        sys.exit("the picture does not say " + word)' "$work/picture.svg"
}

undrawable()
{
    run 2 $small $bug --svg "$work/no/picture" && grep -q -- "--svg: cannot write" "$work/err"
}

documents()
{
    run 1 $small $bug --json &&
        holds 'd["totals"]["broken"] == 1 and d["options"]["mutant"] == "BLOCK_ANNOUNCED_LATE"' &&
        holds 'd["results"][0]["failure"]["property"] == "asleep"' &&
        holds 'd["results"][0]["failure"]["actors"] == ["vCPU 0", "device"]' &&
        holds 'd["results"][0]["failure"]["timeline"]'
}

# ---- Shards ----

shared='post-to-sleeper post-to-runner --accel none,apicv --bound 1 --parts 3'

makes_shards()
{
    for i in 1 2 3 4; do
        run 0 $shared --shard $i/4 --json || return 1
        mv "$work/out" "$work/shard$i"
    done
}

# The order of the files does not matter; the sum is the run of everything.
merges()
{
    run 0 $shared --json && timeless "$work/out" >"$work/whole" &&
        run 0 --json --merge "$work/shard3" "$work/shard1" "$work/shard4" "$work/shard2" &&
        timeless "$work/out" >"$work/sum" && diff "$work/whole" "$work/sum"
}

changed_shard()
{
    sed "$1" "$work/shard2" >"$work/changed"
    cmp -s "$work/shard2" "$work/changed" && { echo "$1 changes nothing"; return 1; }
    refused "$2" --merge "$work/shard1" "$work/changed" "$work/shard3" "$work/shard4"
}

without_results()
{
    echo '{"vapic_check": 1, "options": {}, "shard": {"index": 1, "count": 1}, "results": []}' \
        >"$work/empty"
    refused 'it has no results' --merge "$work/empty"
}

# What somebody wrote into a document does not reach the terminal as it is.
prints_clean()
{
    sed 's/"error": null/"error": "\\u001b[2J\\u009b1m"/' "$work/shard2" >"$work/changed"
    run 1 --merge "$work/shard1" "$work/changed" "$work/shard3" "$work/shard4" || return 1
    grep -qF '?[2J' "$work/out" || { cat "$work/out"; return 1; }
    ! LC_ALL=C grep -q "$(printf '\033\|\302\233')" "$work/out"
}

check 'the help of vapic lists it' in_help
check 'without its program' absent
check 'help' prints 0 '--replay' --help
check 'no scenario' refused 'name scenarios'
check 'unknown scenario' refused "no scenario 'frob'" frob
check 'unknown mode' refused "--accel: no 'amd'" all --accel avic,amd
check 'mode that a scenario does not have' refused 'no such mode' stale-running --accel apicv
check 'bound' refused '--bound' all --bound few
check 'memory model' refused 'sc, tso, c11' all --memory arm
check 'no schedules' refused '--schedules' all --schedules 0
check 'no seconds' refused '--seconds' all --seconds -1
check 'unknown bug' refused 'NOBODY_KNOWS' all --mutant NOBODY_KNOWS
check 'unknown place of a store' refused '--mutant swap:no.c:x+1: nothing' \
    $small --mutant swap:no.c:x+1
check 'unknown place of an order' refused '--mechanical --list' $small --mutant order:no.c:x+1
check 'unknown notification' refused '--mutant drop:kik' $small --mutant drop:kik
check 'shard of none' refused '--shard' all --shard 1/0
check 'shard beyond the last' refused '--shard' all --shard 3/2
check 'nothing to split' refused '--shard does not go with --merge' --merge x --shard 1/2
check 'list of one shard' refused '--shard does not go with --list' --list --shard 1/2
check 'replay with a bound' refused '--bound does not go with --replay' $small --replay 0 --bound 1
check 'mutants in a mode' refused '--accel does not go with --mutants' --mutants --accel avic
check 'two things to do' refused 'two things to do' --merge x --replay 0
check 'only without mutants' refused '--only does not go with an exploration' all --only A
check 'mutants and names' refused '--only PATTERN' all --mutants
check 'replay of all' refused '--replay' all --replay 0
check 'replay in no mode' refused '--accel' post-to-sleeper --replay 0
check 'damaged schedule' refused 'schedule: character 3' $small --replay 0:x
check 'schedule with too many steps' refused 'item 1: the actor stops' \
    $small --replay 0:4294967294,1
check 'schedule that wraps around' refused 'item 3: the actor stops' \
    $small --replay 0:40,1:1,0:4294967294,1
check 'schedule with no such number' refused 'schedule: character' $small --replay 0:4294967296
check 'picture that cannot be written' undrawable
check 'list' lists_scenarios
check 'list of some' lists_some
check 'a share without mutants is empty' prints 0 '0 mutants' \
    --mutants --only BLOCK_ANNOUNCED_LATE --shard 9999/9999
check 'mutants in shards add up' merges_mutants
check 'a shard of mutants is missing' refused 'not as many files as shards' \
    --merge "$work/mutants1" "$work/mutants2"
check 'a shard of mutants is there twice' refused 'this shard is there twice' \
    --merge "$work/mutants1" "$work/mutants2" "$work/mutants2"
check 'mutants and an exploration do not add up' refused 'is no document of' \
    --merge "$work/mutants1" "$work/mutants2" "$work/one"
check 'a mutant that survives' judges 1 'SURVIVED' '"killed": false'
check 'one that survives as argued' judges 0 'as argued' '"killed": false, "argued": "because"'
check 'one that is found' judges 0 '1 killed' "$found"
check 'one that is found though argued' judges 1 'ARGUED, but found' \
    "$found, \"argued\": \"because\""
check 'one that could not be tried' judges 1 '1 not tried' '"error": "not tried"'
check 'an argument of nothing' judges 1 '1 killed' "$found" '"x: argued, but there is none"'
check 'unknown mutants' refused 'no mutant is called' --mutants --only 'NONE_SUCH'
check 'list of properties' lists_properties
check 'every race has a scenario' covers_the_races
check 'a small scenario is complete' completes
check 'two runs, more processes: the same document' repeats
check 'sampling' samples
check 'stopped by a limit' stops
check 'stopped by --timeout' times_out
check 'no progress where no terminal is' prints 0 'complete' $small
check 'progress on a terminal' shows_progress
check 'counterexample, 100 columns' breaks 100
check 'counterexample, 160 columns' breaks 160
check 'its replay line' replays
check 'its schedule without the bug' replays_well
check 'its picture' draws
check 'its document' documents
check 'four shards' makes_shards
check 'they add up to the whole' merges
check 'a shard is missing' refused '1 of 4 shards missing: 3' \
    --merge "$work/shard1" "$work/shard2" "$work/shard4"
check 'a shard is there twice' refused "shard 2 of 4 is in $work/shard2 and in $work/shard2" \
    --merge "$work/shard1" "$work/shard2" "$work/shard2" "$work/shard4"
check 'a shard of another number' changed_shard 's/"count": 4/"count": 5/' 'is one of 5'
check 'a shard with another bound' changed_shard '0,/"bound": 1/s//"bound": 2/' "differ in 'bound'"
check 'a shard of another program' changed_shard 's/"program": "/&x/' "differ in 'program'"
check 'a shard without a part' changed_shard '0,/"parts": [12],/s//"parts": 0,/' 'parts'
check 'a shard with a damaged result' changed_shard '0,/"extent": "[a-z ]*"/s//"extent": "?"/' \
    'damaged'
check 'a shard with a damaged failure' changed_shard '0,/"failure": null/s//"failure": "x"/' \
    'damaged'
check 'a shard with a failure of nothing' changed_shard '0,/"failure": null/s//"failure": {}/' \
    'damaged'
check 'a shard with a damaged error' changed_shard '0,/"error": null/s//"error": 5/' 'damaged'
check 'a shard without results' without_results
check 'control characters of a shard' prints_clean
check 'no such shard' refused 'unable to open' --merge "$work/shard1" "$work/nothing"
check 'no JSON' refused 'expected' --merge "$here/test_check_cli.sh"
tap_end
