#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Adds up test results and prints the one line that says how a test run ended.

usage: tally.py DIR

DIR holds what tools/test.sh collected, one file per phase:

  *.json   meson's testlog.json: one JSON object per line, one per test program
  *.tap    the TAP output of a driver that is not run by meson

Single tests are counted, not programs: a program that prints TAP counts once per test line. A
program that failed without saying which test did (crash, time limit, missing lines) counts as
one failure more, so that no failure can hide behind its own count. A phase that ran nothing is
a failure, too.
"""

import collections
import json
import pathlib
import re
import sys
from dataclasses import dataclass, field

PLAN = re.compile(r"^1\.\.(\d+)")
LINE = re.compile(r"^(not )?ok\b\s*(.*)")
SKIP = re.compile(r"#\s*skip\S*\s*(.*)", re.IGNORECASE)


@dataclass
class Count:
    """What one phase or one program amounts to."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    notes: list = field(default_factory=list)
    skips: collections.Counter = field(default_factory=collections.Counter)

    def add(self, other):
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped
        self.notes += other.notes
        self.skips += other.skips

    def fail(self, note):
        self.failed += 1
        self.notes.append(note)


def count_tap(name, text):
    """Counts the test lines of one TAP stream; None when it holds no TAP at all."""
    count = Count()
    planned = None
    seen = 0
    explaining = False
    for line in text.splitlines():
        if explaining and line.startswith("#"):
            count.notes.append(f"    {line}")
            continue
        explaining = False
        plan = PLAN.match(line)
        if plan:
            planned = (planned or 0) + int(plan[1])
            continue
        if line.startswith("Bail out!"):
            count.fail(f"{name}: {line}")
            continue
        match = LINE.match(line)
        if not match:
            continue
        seen += 1
        skip = SKIP.search(match[2])
        if skip:
            count.skipped += 1
            count.skips[f"{name}: {skip[1]}"] += 1
        elif match[1]:
            count.fail(f"{name}: {match[2]}")
            explaining = True
        else:
            count.passed += 1
    if planned is None and seen == 0:
        return None
    if planned is None:
        count.fail(f"{name}: no plan line")
    elif planned != seen:
        count.fail(f"{name}: planned {planned} tests, ran {seen}")
    return count


def count_program(record):
    """Counts one line of meson's test log."""
    name = record["name"]
    good = record["result"] == "OK"
    count = count_tap(name, record.get("stdout") or "")
    if count is None:
        count = Count()
        if good:
            count.passed += 1
        else:
            count.fail(f"{name}: {record['result']}, exit status {record.get('returncode')}")
    elif not good and count.failed == 0 and count.skipped == 0:
        count.fail(f"{name}: {record['result']}, exit status {record.get('returncode')}")
    return count


def count_phase(path):
    """Counts one file of the result directory."""
    phase = path.stem
    count = Count()
    text = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix == ".json":
        for line in text.splitlines():
            count.add(count_program(json.loads(line)))
    else:
        count.add(count_tap(phase, text) or Count())
    if count.passed + count.failed == 0:
        count.fail(f"{phase}: ran no test")
    return count


def main():
    if len(sys.argv) != 2:
        print("usage: tally.py DIR", file=sys.stderr)
        return 2
    total = Count()
    paths = sorted(
        p for p in pathlib.Path(sys.argv[1]).iterdir() if p.suffix in (".json", ".tap")
    )
    for path in paths:
        count = count_phase(path)
        skipped = f", {count.skipped} skipped" if count.skipped else ""
        print(f"  {path.stem:<20} {count.passed} ok, {count.failed} not ok{skipped}")
        total.add(count)
    for why, number in sorted(total.skips.items()):
        print(f"  - {number} skipped, {why}")
    for note in total.notes:
        print(f"  ! {note}")
    print(f"{total.passed} passed, {total.failed} failed")
    return 0 if total.failed == 0 and total.passed > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
