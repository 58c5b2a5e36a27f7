#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Prints runs of `vapic check --mutants --json` as TAP: mutants-tap.py FILE..."""

import json
import pathlib
import sys


def text_of(mutant):
    if mutant["killed"]:
        where = "%s (%s, %s)" % (mutant["scenario"], mutant["accel"], mutant["memory"])
        said = " (ARGUED, but found)" if "argued" in mutant else ""
        return "%s is found by %s%s" % (mutant["mutant"], where, said)
    if "argued" in mutant:
        return "%s survives, as argued" % mutant["mutant"]
    return "%s survives: %s" % (mutant["mutant"], mutant.get("error", mutant["text"]))


def main():
    mutants = []
    for name in sys.argv[1:]:
        mutants += json.loads(pathlib.Path(name).read_text())
    print("TAP version 13\n1..%d" % len(mutants))
    for number, mutant in enumerate(mutants, 1):
        good = mutant["killed"] or "argued" in mutant
        print("%s %d - %s" % ("ok" if good else "not ok", number, text_of(mutant)))


main()
