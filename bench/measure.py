#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Counts what the hot paths of libvapic execute, and prints it as a table or as JSON.

Instructions are those that run inside the library under the op_* function of an operation
(bench/cases.c), as callgrind counts them: exact and repeatable. The benchmark's own functions,
op_* and the host's callbacks host_*, are left out. Each operation is run with two iteration counts
and the difference is taken, so that what only the first time costs does not count. A locked
operation is an executed instruction with a lock prefix, or an xchg with memory, found in the
disassembly by its address. Nanoseconds are medians and depend on the machine.
"""

import argparse
import datetime
import json
import os
import re
import subprocess
import sys
import tempfile
from fractions import Fraction

ITERATIONS = (20, 120)
OWN_FUNCTION = re.compile(r"^(op_|host_)")
COST_LINE = re.compile(r"^0x([0-9a-f]+) \S+ (\d+)$")
LOCKED = re.compile(r"^\s*([0-9a-f]+):\s+(?:lock |xchg .*\()")


def fail(text):
    sys.exit(f"measure.py: {text}")


def output_of(*command):
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    except FileNotFoundError:
        fail(f"{command[0]} is missing: install it")
    if done.returncode != 0:
        fail(f"{' '.join(command)} failed ({done.returncode}):\n{done.stderr.strip()}")
    return done.stdout


def locked_addresses(program):
    """The addresses of all locked instructions in `program`."""
    text = output_of("objdump", "-d", "--no-show-raw-insn", program)
    return {int(m.group(1), 16) for m in map(LOCKED.match, text.splitlines()) if m}


def read_counts(path, locked):
    """(instructions, locked ones, per function) of one callgrind output file."""
    total, total_locked, functions = 0, 0, {}
    function, inclusive = "", False
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            line = line.rstrip("\n")
            if line.startswith("fn="):
                function = line[3:]
            elif line.startswith("calls="):
                inclusive = True  # the next line is what the callee cost, counted there already
            elif m := COST_LINE.match(line):
                if not inclusive and not OWN_FUNCTION.match(function):
                    cost = int(m.group(2))
                    total += cost
                    total_locked += cost if int(m.group(1), 16) in locked else 0
                    functions[function] = functions.get(function, 0) + cost
                inclusive = False
    return total, total_locked, functions


def run_callgrind(program, name, count, locked):
    with tempfile.TemporaryDirectory() as directory:
        out = os.path.join(directory, "out")
        output_of(
            "valgrind", "--tool=callgrind", "--dump-instr=yes", "--compress-strings=no",
            "--compress-pos=no", "--toggle-collect=op_*", f"--callgrind-out-file={out}",
            program, "--run", name, "--count", str(count),
        )  # fmt: skip
        return read_counts(out, locked)


def per_target(high, low, targets):
    return Fraction(high - low, (ITERATIONS[1] - ITERATIONS[0]) * targets)


def measure(program, row, locked, profile):
    low = run_callgrind(program, row["name"], ITERATIONS[0], locked)
    high = run_callgrind(program, row["name"], ITERATIONS[1], locked)
    if high[0] <= low[0]:
        fail(f"{row['name']}: callgrind counted nothing")
    row["instructions"] = round(float(per_target(high[0], low[0], row["targets"])), 1)
    row["locked"] = round(float(per_target(high[1], low[1], row["targets"])), 1)
    row["ns"] = round(float(output_of(program, "--time", row["name"])), 1)
    if profile:
        row["functions"] = {
            f: round(float(per_target(n, low[2].get(f, 0), row["targets"])), 1)
            for f, n in sorted(high[2].items(), key=lambda item: -item[1])
        }


def list_rows(program):
    rows = []
    for line in output_of(program, "--list").splitlines():
        name, targets, aim, locked_aim, text = line.split("\t")
        rows.append(
            {
                "name": name,
                "text": text,
                "targets": int(targets),
                "aim": int(aim) or None,
                "locked_aim": None if int(locked_aim) < 0 else int(locked_aim),
            }
        )
    return rows


def number(value):
    return "" if value is None else f"{value:g}"


def right_aligned(widths):
    return ["-" * (width + 1) + ":" for width in widths]


def table(report, before):
    head = ["operation", "instr", "aim", "locked", "aim", "ns"]
    lines = [head]
    for row in report["rows"]:
        cells = [row["text"]] + [
            number(row[k]) for k in ("instructions", "aim", "locked", "locked_aim", "ns")
        ]
        lines.append(cells)
    if before:
        old = {row["name"]: row for row in before["rows"]}
        head.insert(1, "before")
        for cells, row in zip(lines[1:], report["rows"]):
            cells.insert(1, number(old.get(row["name"], {}).get("instructions")))
    widths = [max(len(cells[i]) for cells in lines) for i in range(len(head))]
    text = []
    for n, cells in enumerate(lines):
        padded = [cells[0].ljust(widths[0])] + [c.rjust(w) for c, w in zip(cells[1:], widths[1:])]
        text.append("| " + " | ".join(padded) + " |")
        if n == 0:
            text.append("|" + "|".join(["-" * (widths[0] + 2)] + right_aligned(widths[1:])) + "|")
    return "\n".join(text)


def profile_text(report):
    text = []
    for row in report["rows"]:
        text.append(f"\n{row['name']}: {number(row['instructions'])}")
        text += [f"  {number(n):>6}  {f}" for f, n in row["functions"].items() if n]
    return "\n".join(text)


def processor():
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return "unknown"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", help="the hotpaths program of a release build")
    parser.add_argument("only", nargs="*", metavar="NAME", help="measure only these operations")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--save", metavar="FILE", help="write the JSON to FILE as well")
    parser.add_argument("--before", metavar="FILE", help="compare with an earlier --json report")
    parser.add_argument("--profile", action="store_true", help="also count per function")
    parser.add_argument("--compiler", default="unknown", help="what to note as the compiler")
    args = parser.parse_intermixed_args()

    rows = list_rows(args.program)
    if unknown := set(args.only) - {row["name"] for row in rows}:
        parser.error(f"no operation {', '.join(sorted(unknown))}")
    rows = [row for row in rows if not args.only or row["name"] in args.only]
    locked = locked_addresses(args.program)
    for row in rows:
        measure(args.program, row, locked, args.profile)
    report = {
        "compiler": args.compiler,
        "processor": processor(),
        "date": datetime.date.today().isoformat(),
        "rows": rows,
    }
    before = json.load(open(args.before, encoding="utf-8")) if args.before else None
    if args.save:
        with open(args.save, "w", encoding="utf-8") as out:
            json.dump(report, out, indent=2)
    if args.json:
        print(json.dumps(report, indent=2))
        return
    print(f"{report['compiler']}; {report['processor']}; {report['date']}\n")
    print(table(report, before))
    if args.profile:
        print(profile_text(report))


if __name__ == "__main__":
    main()
