# SPDX-License-Identifier: MIT
# shellcheck shell=sh
#
# What the scripts that fetch packages share: they read it in. Nothing is installed; packages come
# from the Debian mirror that this machine is configured for, and apt verifies their signatures.
# `dir` is the directory below which everything lies, `suite` the Debian suite that is meant, empty
# for this machine's own.

die()
{
    echo "${0##*/}: $*" >&2
    exit 1
}

# Words that go into paths and into a sources list: no surprises in them.
check_suite()
{
    case $suite in
    *[!a-z0-9-]*) die "'$suite' is no name of a Debian suite" ;;
    esac
}

# Two builds in one tree would otherwise unpack over each other.
lock_dir()
{
    mkdir -p "$dir"
    dir=$(cd "$dir" && pwd)
    exec 9>"$dir/.lock"
    command -v flock >/dev/null && flock 9
}

need()
{
    for tool; do
        command -v "$tool" >/dev/null || die "$tool is missing: run 'make packages'"
    done
}

# apt_for_suite - an apt configuration of our own for `suite`, and its package lists
apt_for_suite()
{
    state=$dir/apt-$suite
    mkdir -p "$state/lists/partial" "$state/cache/archives/partial"
    # shellcheck disable=SC2016  # apt's own variables
    mirror=$(apt-get indextargets --format '$(REPO_URI) $(COMPONENT)' \
        'Created-By: Packages' 'Origin: Debian' 'Label: Debian' 'Component: main' |
        sed -n '1s/ .*//p')
    [ -n "$mirror" ] || die "this machine's apt knows no Debian mirror: see apt's sources.list"
    echo "deb $mirror $suite main" >"$state/sources.list"
    set -- -o "Dir::Etc::sourcelist=$state/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o "Dir::State::lists=$state/lists" -o "Dir::Cache=$state/cache"
    printf '%s\n' "$@" >"$state/options"
    logged with_apt apt-get update || die "cannot read the package lists of suite '$suite'"
}

# with_apt COMMAND ARGUMENT... - apt's COMMAND for the wanted suite, unprivileged if need be
with_apt()
{
    tool=$1
    shift
    if [ -n "$suite" ]; then
        while IFS= read -r option; do
            set -- "$@" "$option"
        done <"$dir/apt-$suite/options"
    fi
    "$tool" -o APT::Sandbox::User=root -q "$@"
}

# logged COMMAND... - runs it in silence; what it said is shown when it fails
logged()
{
    "$@" >"$dir/apt.log" 2>&1 || {
        tail -n 20 "$dir/apt.log" | sed 's/^/    /' >&2
        return 1
    }
}
