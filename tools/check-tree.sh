#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Checks what holds for every file of the tree, in TAP: licence lines, line length, blanks, and
# words that do not belong here. It looks at the tracked files, or at all of them where this is
# no git checkout.
set -u
cd "$(dirname "$0")/.." || exit 2
. tools/tap.sh

# tracked PATTERN: the text files whose name matches the extended regular expression. The inputs of
# the fuzz targets are nobody's text.
tracked()
{
    if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
        git ls-files
    else
        find . -path ./build -prune -o -type f -print | sed 's,^\./,,'
    fi | grep -v '^fuzz/corpus/' | grep -E "$1" | xargs -r -d '\n' grep -sIl . --
}

programs='\.(c|h|S|s|ld|lds|asl)$'
builds='(^|/)meson\.build$|meson_options\.txt$|(^|/)Makefile$|^\.ci/run$|^\.clang-'
scripts='\.(py|sh)$|^tests/.*/run$'
sources="$programs|$builds|$scripts"

# none EXPLANATION: succeeds when standard input is empty, else prints it.
none()
{
    found=$(head -n 20)
    [ -z "$found" ] && return 0
    printf '%s\n' "$found"
    return 1
}

# grep_in FILES-PATTERN REGEX: matching lines of the files, with their place.
grep_in()
{
    tracked "$1" | LC_ALL=C.UTF-8 xargs -r -d '\n' grep -nHE "$2" -- /dev/null | none
}

# The licence line is the first one, or the second below a #! line.
licence_lines()
{
    tracked "$sources|^tools/" | grep -vE '\.(txt|md|json)$' | while read -r file; do
        head -n 2 "$file" | grep -q 'SPDX-License-Identifier: MIT' || echo "$file: none"
    done | none
}

other_licences()
{
    tracked . | xargs -r -d '\n' grep -nH 'SPDX-License-Identifier:' -- /dev/null |
        grep -vE 'SPDX-License-Identifier: MIT( \*/| -->)?$' |
        grep -v '^tools/check-tree\.sh:' | none
}

# A test that the build does not know would never fail.
unlisted_tests()
{
    for file in tests/test_*.c; do
        name=$(basename "$file" .c)
        grep -q "'$name'" tests/meson.build || echo "$file is not in tests/meson.build"
    done | none
}

# Brackets keep this script from matching itself. Hosts: what a package manager fetches from.
foreign='\.\./share[d]|/wor[k]/|fact[ -]shee[t]'
hosts='(deb|security|ftp|snapshot|archive)[.]debian[.]org|registry[.]npmjs|pypi[.]org|crates[.]io'
copied='[G]PL|[G]NU General'

check "every source begins with its licence" licence_lines
check "no other licence" other_licences
check "no line of code is longer than 100 columns" grep_in "$sources|^tools/.*" '^.{101,}'
check "every unit test is in the build" unlisted_tests
check "no trailing blanks" grep_in . '[[:blank:]]+$'
check "no tabs in C" grep_in '\.[ch]$' "$(printf '\t')"
check "the project speaks of itself only" grep_in . "$foreign"
check "no host name of a package registry" grep_in . "$hosts"
check "no source speaks of code under another licence" grep_in "$programs" "$copied"
tap_end
