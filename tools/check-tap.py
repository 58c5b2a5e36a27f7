#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Turns documents of `vapic check --json` into TAP: one test for each scenario and mode.

usage: check-tap.py DOCUMENT...

A test is not ok when a property was broken, with what and how to play it again as the diagnosis,
or when the exploration was not done. One that was given no number of schedules is to reach the end:
where time was over first it is not ok either, unless the table in docs/checking.md below "Rows that
need not end" has it. A document that is empty or damaged is a failed test.
"""

import fnmatch
import json
import pathlib
import re
import shlex
import sys


def replay_line(options, result):
    """The command that plays the counterexample of a result again."""
    words = ["vapic", "check", result["scenario"], "--accel", result["mode"]]
    if options["memory"] != "sc":
        words += ["--memory", options["memory"]]
    if options["mutant"]:
        words += ["--mutant", options["mutant"]]
    return shlex.join(words + ["--replay", result["failure"]["schedule"]])


def endless_rows():
    """What need not end: patterns of scenario, mode and memory."""
    text = (pathlib.Path(__file__).parent.parent / "docs/checking.md").read_text(encoding="utf-8")
    table = text.split("### Rows that need not end", 1)[1].split("\n#", 1)[0]
    rows = re.findall(r"^\| `(\S+)` \| `(\S+)` \| `(\S+)` \|", table, re.MULTILINE)
    if not rows:
        raise ValueError("docs/checking.md: no table of rows that need not end")
    return rows


ENDLESS = endless_rows()


def is_unfinished(options, result):
    """Whether time was over before the exploration was, which no number of schedules limited."""
    return result["extent"] == "stopped" and not options["schedules"] and not options["sampled"]


def need_not_end(options, result):
    row = (result["scenario"], result["mode"], options["memory"])
    return any(all(map(fnmatch.fnmatchcase, row, patterns)) for patterns in ENDLESS)


def diagnosis(options, result):
    """Why a result is not good: lines of text; none when it is."""
    failure = result["failure"]
    if result["error"]:
        return [result["error"]]
    if failure and failure["property"]:
        return [f"{failure['property']}: {failure['message']}", replay_line(options, result)]
    if is_unfinished(options, result) and not need_not_end(options, result):
        return ["not explored to its end, and docs/checking.md does not say that it need not be"]
    return []


def tests(path):
    """Yields (title, lines of diagnosis) for every result of a document."""
    try:
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
        options = document["options"]
        for result in document["results"]:
            title = (
                f"{result['scenario']} on {result['mode']}, {options['memory']}: "
                f"{result['schedules']} schedules, {result['extent']}"
            )
            if is_unfinished(options, result):
                title += f" # incomplete: {result['schedules']} schedules"
            yield title, diagnosis(options, result)
    except (OSError, ValueError, KeyError) as why:
        yield path, [f"no document: {why!r}"]


def main():
    count = failed = 0
    for path in sys.argv[1:]:
        for title, lines in tests(path):
            count += 1
            failed += bool(lines)
            print(f"{'not ok' if lines else 'ok'} {count} - {title}")
            for line in lines:
                print(f"# {line}")
    print(f"1..{count}")
    return 1 if failed or count == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
