#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes explore/mutants_hints.c from the JSON of runs of mutants:

    vapic check --mutants --json > named.json
    vapic check --mutants --mechanical --json > places.json
    tools/mutant-hints.py named.json places.json

A function that changes may lose its hints: then its mutants take longer, until this is run again.
"""

import json
import pathlib
import subprocess
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
    return '    {"%s", "%s", %s, %s, %s},' % (
        mutant["mutant"],
        mutant["scenario"],
        MODES[mutant["accel"]],
        MEMORIES[mutant["memory"]],
        STRATEGIES[mutant["strategy"]],
    )


def main():
    if len(sys.argv) < 2:
        sys.exit("usage: mutant-hints.py FILE...")
    rows = set()
    for name in sys.argv[1:]:
        document = json.loads(pathlib.Path(name).read_text())
        rows |= {row(m) for m in document["mutants"] if m.get("killed")}
    target = pathlib.Path(__file__).parent.parent / "explore" / "mutants_hints.c"
    target.write_text(HEAD + "\n".join(sorted(rows)) + "\n" + TAIL)
    subprocess.run(["clang-format", "-i", target], check=True)


main()
