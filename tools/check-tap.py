#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Turns documents of `vapic check --json` into TAP: one test for each scenario and mode.

usage: check-tap.py DOCUMENT...

A test is not ok when a property was broken, with what and how to play it again as the diagnosis,
or when the exploration was not done. A document that is empty or damaged is a failed test.
"""

import json
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


def diagnosis(options, result):
    """Why a result is not good: lines of text; none when it is."""
    failure = result["failure"]
    if result["error"]:
        return [result["error"]]
    if failure and failure["property"]:
        return [f"{failure['property']}: {failure['message']}", replay_line(options, result)]
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
