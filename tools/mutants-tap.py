#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Prints runs of `vapic check --mutants --json` as TAP: mutants-tap.py FILE..."""

import json
import pathlib
import sys


def text_of(mutant):
    if "error" in mutant:
        return "%s: %s" % (mutant["mutant"], mutant["error"])
    if mutant["killed"]:
        where = "%s (%s, %s)" % (mutant["scenario"], mutant["accel"], mutant["memory"])
        said = " (ARGUED, but found)" if "argued" in mutant else ""
        return "%s is found by %s%s" % (mutant["mutant"], where, said)
    if "argued" in mutant:
        return "%s survives, as argued" % mutant["mutant"]
    return "%s survives: %s" % (mutant["mutant"], mutant["text"])


def is_good(mutant):
    return "error" not in mutant and mutant["killed"] != ("argued" in mutant)


def main():
    mutants, wrong = [], []
    for name in sys.argv[1:]:
        document = json.loads(pathlib.Path(name).read_text())
        mutants += document["mutants"]
        wrong += document["wrong_arguments"]
    print("TAP version 13\n1..%d" % (len(mutants) + len(wrong)))
    for number, mutant in enumerate(mutants, 1):
        print("%s %d - %s" % ("ok" if is_good(mutant) else "not ok", number, text_of(mutant)))
    for number, text in enumerate(wrong, len(mutants) + 1):
        print("not ok %d - %s" % (number, text))


main()
