#!/bin/sh
# SPDX-License-Identifier: MIT
#
# usage: lint.sh [--fix | --format-only]
#
# Without an option: clang-format and clang-tidy over every C file, changing nothing; both must
# have nothing to say. With --fix: clang-format in place.
set -eu
cd "$(dirname "$0")/.."

list()
{
    git ls-files --cached --others --exclude-standard -- "$@"
}

case ${1:-} in
--fix)
    list '*.c' '*.h' | xargs -r clang-format -i
    exit 0
    ;;
esac

status=0
list '*.c' '*.h' | xargs -r clang-format --dry-run -Werror || status=1
[ "${1:-}" != --format-only ] || exit $status

# The commands that clang-tidy replays are those of the clang build; files which that build does
# not compile (guest programs for other modes) are left out.
CC=clang sh tools/build.sh build/clang
compiled=$(python3 - <<'PYTHON'
import json, os
root = os.getcwd()
for entry in json.load(open("build/clang/compile_commands.json")):
    path = os.path.realpath(os.path.join(entry["directory"], entry["file"]))
    if path.endswith(".c") and not path.startswith(os.path.join(root, "build") + os.sep):
        print(os.path.relpath(path, root))
PYTHON
)
# Findings go to standard output; the other one only counts warnings that are off.
printf '%s\n' "$compiled" | sort -u |
    xargs -r -n 1 -P "$(nproc)" clang-tidy --quiet -p build/clang 2>build/clang-tidy.log || {
    grep -vE '^[0-9]+ warnings? generated' build/clang-tidy.log >&2 || true
    status=1
}
exit $status
