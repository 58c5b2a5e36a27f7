#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Checks the arrows between the rooms: who may include whose headers.

usage: check-includes.py

Prints one line per include that breaks a rule, and ends with status 1 when there is one.

  src/       its own headers, <vapic/...>, and the freestanding headers of C
  silicon/   its own headers, <vapic/silicon.h>, <vapic/arch/...>, the freestanding headers of C:
             it is the other party and may share nothing with src/
  include/   itself, and the freestanding headers of C; of the library's half, the model's header
             and what it includes know nothing
  others     never a header of src/: an embedder has the public ones only. explore/ has one more,
             the list of the bugs that it puts in
             (tests/ and bench/ may look inside, so they are not asked)
"""

import pathlib
import re
import sys

FREESTANDING = {
    "stdint.h",
    "stdbool.h",
    "stddef.h",
    "stdatomic.h",
    "stdalign.h",
    "limits.h",
}
EMBEDDERS = ("vmm", "cli", "examples", "guest", "explore")
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+([<"])([^>"]+)[>"]', re.MULTILINE)

ROOT = pathlib.Path(__file__).resolve().parent.parent


def includes(room):
    """Yields (file, quote, name) for every include directive below a directory."""
    for path in sorted((ROOT / room).rglob("*")):
        if path.suffix in (".c", ".h", ".S") and path.is_file():
            for quote, name in INCLUDE.findall(path.read_text(encoding="utf-8")):
                yield path, quote, name


def is_public(name):
    return name.startswith("vapic/") and (ROOT / "include" / name).is_file()


def is_below(path, room):
    return path.is_file() and (ROOT / room) in path.resolve().parents


def library_may(path, quote, name):
    """Whether a file of src/ or include/ may include this."""
    if quote == "<":
        return name in FREESTANDING or is_public(name)
    own = "src" if (ROOT / "src") in path.parents else "include"
    if own == "src" and name == "vapic/silicon.h":
        return False
    return is_public(name) or is_below(path.parent / name, own) or is_below(ROOT / own / name, own)


def model_may(path, quote, name):
    """Whether a file of silicon/, or the model's public header, may include this."""
    if quote == "<":
        return name in FREESTANDING
    if name == "vapic/silicon.h" or (name.startswith("vapic/arch/") and is_public(name)):
        return True
    return is_below(path.parent / name, "silicon") or is_below(ROOT / "silicon" / name, "silicon")


def header_may(path, quote, name):
    """Whether a file of include/ may include this."""
    return (model_may if path.name == "silicon.h" else library_may)(path, quote, name)


def embedder_may(path, quote, name):
    """Whether a file outside of the library may include this."""
    if quote == "<" or is_public(name):
        return True
    if name == "../src/mutant.h" and path.parent == ROOT / "explore":
        return True
    for room in ("src", "silicon"):
        if is_below(path.parent / name, room):
            return False
    return (path.parent / name).is_file() or not (
        is_below(ROOT / "src" / name, "src") or is_below(ROOT / "silicon" / name, "silicon")
    )


def main():
    rooms = [("src", library_may), ("silicon", model_may), ("include", header_may)]
    rooms += [(room, embedder_may) for room in EMBEDDERS]
    broken = 0
    for room, may in rooms:
        for path, quote, name in includes(room):
            if not may(path, quote, name):
                print(f"{path.relative_to(ROOT)} may not include {name}")
                broken += 1
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
