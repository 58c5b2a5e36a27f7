#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes explore/mutants_hints.c from the JSON of a run of mutants:

    vapic check --mutants --json > all.json && tools/mutant-hints.py all.json
"""

import json
import pathlib
import sys

MODES = {
    "none": "EX_NONE",
    "avic": "EX_AVIC",
    "avic-noipiv": "EX_AVIC_NOIPIV",
    "x2avic": "EX_X2AVIC",
    "apicv": "EX_APICV",
    "apicv-ipiv": "EX_APICV_IPIV",
}
MEMORIES = {"sc": "EX_SC", "tso": "EX_TSO", "c11": "EX_C11"}
STRATEGIES = {"sampled": "EX_SAMPLED", "systematic": "EX_SYSTEMATIC"}

HEAD = """/* SPDX-License-Identifier: MIT */
/* Where each mutant is known to be found. Made by tools/mutant-hints.py. */
#include "mutants.h"

const struct ex_mutant_hint ex_mutant_hints[] = {
"""
TAIL = """};
const size_t ex_mutant_hint_count = sizeof(ex_mutant_hints) / sizeof(ex_mutant_hints[0]);
"""


def row(mutant):
    text = '{"%s", "%s", %s, %s, %s},' % (
        mutant["mutant"],
        mutant["scenario"],
        MODES[mutant["accel"]],
        MEMORIES[mutant["memory"]],
        STRATEGIES[mutant["strategy"]],
    )
    if len(text) <= 96:
        return "    " + text
    head, tail = text.split(", ", 1)
    return "    %s,\n     %s" % (head, tail)


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: mutant-hints.py FILE")
    mutants = json.loads(pathlib.Path(sys.argv[1]).read_text())
    rows = [row(m) for m in sorted(mutants, key=lambda m: m["mutant"]) if m["killed"]]
    target = pathlib.Path(__file__).parent.parent / "explore" / "mutants_hints.c"
    target.write_text(HEAD + "\n".join(rows) + "\n" + TAIL)


main()
