#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Lists the rules of the manuals that the library cites, and the tests that cite them.

usage: spec-report.py [--strict] [--uncited] [--where]

A citation has one form, [SOURCE PLACE]. A library file cites a rule where it obeys it, a test
cites the same rule where it checks it; the two are tied by the same text, so one citation names
one place (not "12.5, 12.6", not "12.5-12.7").

  [SDM3 12.5.1]    a section of a volume of Intel's manual        SDM1 to SDM4
  [SDM3 T12-1]     a table of it; F12-8 is a figure
  [SDM2 HLT]       an instruction's page
  [APM2 B.1]       an appendix, or a section of it
  [APM2 16.3.1]    a section of a volume of AMD's manual          APM1 to APM5
  [IOAPIC 3.2.4]   the 82093AA data sheet
  [IOMMU 2.2.5]    AMD's specification of its IOMMUs
  [PIC 8259A]      other chips: [PIC ...], [PIT ...], [RTC ...], [UART ...]
  [MB1 3.2]        the multiboot specification, version 1
  [ACPI 5.2.12]    [PCI 3.2] [MP 4.3]
  [KVM lapic]      behaviour observed on Linux, named by a word

options:
  --uncited   only the rules that no test cites
  --where     the places in the library, too
  --strict    exit with status 1 when some rule has no test

Something in brackets that begins like a citation but is none is an error in any case.
"""

import argparse
import pathlib
import re
import sys
from collections import defaultdict

SECTION = r"\d+(\.\d+)*[A-Z]?"
APPENDIX = r"[A-K](\.\d+)*"
CAPTION = r"[TF]\d+-\d+"
MNEMONIC = r"[A-Z][A-Z0-9]+"
WORD = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
SOURCES = {
    r"SDM[1-4]": rf"{SECTION}|{APPENDIX}|{CAPTION}|{MNEMONIC}",
    r"APM[1-5]": rf"{SECTION}|{APPENDIX}|{CAPTION}|{MNEMONIC}",
    r"MB1": SECTION,
    r"IOAPIC": SECTION,
    r"IOMMU": SECTION,
    r"ACPI": SECTION,
    r"PCI": SECTION,
    r"MP": SECTION,
    r"KVM": WORD,
    r"PIC|PIT|RTC|UART": WORD,
}
NAMES = "|".join(SOURCES)
SUSPECT = re.compile(rf"\[((?:{NAMES}|SDM\d?|APM\d?)\s[^\]\n]*)\]")
VALID = re.compile("|".join(rf"(?:(?:{name}) (?:{place}))" for name, place in SOURCES.items()))

ROOT = pathlib.Path(__file__).resolve().parent.parent
LIBRARY = ("src", "include")
TESTS = ("tests", "guest")
SUFFIXES = {".c", ".h", ".S", ".sh", ".py"}


def citations(room):
    """Yields (text in brackets, file, line number) for every citation below a directory."""
    for path in sorted((ROOT / room).rglob("*")):
        if path.suffix not in SUFFIXES or not path.is_file():
            continue
        text = path.read_text(encoding="utf-8")
        for number, line in enumerate(text.splitlines(), start=1):
            for cited in SUSPECT.findall(line):
                if cited.endswith(" n"):
                    continue  # an explanation of the form itself
                yield cited, path.relative_to(ROOT), number


def sort_key(rule):
    """Sorts 12.5 before 12.11."""
    return [(1, int(p), "") if p.isdigit() else (0, 0, p) for p in re.split(r"(\d+)", rule)]


def collect(rooms, malformed):
    """Maps each rule to its places in the rooms; notes what is no citation."""
    found = defaultdict(list)
    for room in rooms:
        for cited, path, number in citations(room):
            if VALID.fullmatch(cited):
                found[cited].append((path, number))
            else:
                malformed.append(f"{path}:{number}: [{cited}] names no single place")
    return found


def print_rule(rule, places, tests, where):
    tested = ", ".join(sorted({path.stem for path, _ in tests})) or "NO TEST"
    print(f"{'[' + rule + ']':<18} {tested}")
    if where:
        for path, number in places:
            print(f"    {path}:{number}")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--strict", action="store_true")
    parser.add_argument("--uncited", action="store_true")
    parser.add_argument("--where", action="store_true")
    options = parser.parse_args()

    malformed = []
    rules = collect(LIBRARY, malformed)
    tests = collect(TESTS, malformed)
    untested = [rule for rule in rules if rule not in tests]
    for rule in sorted(rules, key=sort_key):
        if not options.uncited or rule in untested:
            print_rule(rule, rules[rule], tests.get(rule, []), options.where)
    for line in malformed:
        print(line, file=sys.stderr)
    places = sum(len(found) for found in rules.values())
    print(f"{len(rules)} rules cited at {places} places, {len(untested)} of them by no test")
    return 1 if malformed or (options.strict and untested) else 0


if __name__ == "__main__":
    sys.exit(main())
