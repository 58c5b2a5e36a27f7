# SPDX-License-Identifier: MIT
#
# A few lines of TAP for the check scripts of this directory, which source it: `check TITLE CMD...`
# runs CMD, whose output becomes the diagnosis when it fails; `tap_end` prints the plan and gives
# the exit status.

tap_count=0
tap_failed=0

# check TITLE CMD...: one test. CMD succeeds or explains itself on its output.
check()
{
    title=$1
    shift
    tap_count=$((tap_count + 1))
    if output=$("$@" 2>&1); then
        echo "ok $tap_count - $title"
    else
        tap_failed=$((tap_failed + 1))
        echo "not ok $tap_count - $title"
        printf '%s\n' "$output" | sed 's/^/# /'
    fi
}

tap_end()
{
    echo "1..$tap_count"
    [ "$tap_failed" -eq 0 ]
}
