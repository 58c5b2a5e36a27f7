# SPDX-License-Identifier: MIT
"""`vapic diff` in the rig: libvapic in every mode against the APIC of the host's kernel. Each mode
and profile is a test here, and that nothing unexplained was found; see docs/differential.md."""

import json

from bench import DEPS, HERE, Run, expect

SEED = 20261120
MODES = ("none", "avic", "avic-noipiv", "x2avic", "apicv", "apicv-ipiv")
PROFILES = ("manual", "kvm")
PROGRAMS = sorted((HERE.parent / "diff").glob("*.prog"))

# Debian 13's and sid's, if `make build` or the user has fetched them.
OTHER_HOSTS = {"6.12": "vmlinuz-trixie", "sid": "vmlinuz-sid"}


def diff(bench, words, timeout):
    command = [bench.vapic, "diff", "--engine", "rig", "--json", *words]
    run = Run(command, timeout=timeout)
    expect(run.status in (0, 1), f"exit status {run.status}: {run.evidence()}")
    return json.loads(run.console), run


def report(bench, name, results, least):
    """One test per mode and profile: so many operations were compared, and all is explained."""
    for one in results["runs"]:
        why = None
        if one["unexplained"]:
            why = f"{one['unexplained']} differences that tests/diff/known.md does not explain"
        elif one["operations"] < least:
            why = f"only {one['operations']} operations were compared"
        found = [f for f in results["findings"]
                 if (f["mode"], f["profile"]) == (one["mode"], one["profile"])]
        note = f" # {one['operations']} operations, {one['known']} known differences"
        bench.tap.result(f"{name}: {one['mode']}, profile {one['profile']}", why, note,
                         json.dumps(found, indent=1))
    bench.check(f"{name}: no more", lambda: expect(results["ok"], "too many unsteady programs"))


def compare(bench, name, words, least, timeout):
    try:
        results, _ = diff(bench, words, timeout)
    except Exception as why:  # the row fails, the others go on
        bench.tap.result(f"{name}: runs", str(why))
        return
    print(f"# {name}: host {results['host']}, {results['seconds']} s")
    report(bench, name, results, least)


def by_hand(bench):
    """The programs of tests/diff/*.prog, in every mode and profile."""
    words = ["--profile", "all"]
    for program in PROGRAMS:
        words += ["--program", program]
    compare(bench, "diff-programs", words, 300, timeout=900)


def random(bench):
    """A share of random programs, always the same."""
    words = ["--profile", "kvm", "--seed", SEED, "--ops", 1800]
    compare(bench, "diff-random-kvm", words, 600, timeout=900)
    words = ["--profile", "manual", "--seed", SEED + 1, "--ops", 900]
    compare(bench, "diff-random-manual", words, 200, timeout=900)


def a_difference_is_found(bench):
    """Without the list of what is known a difference that Linux has is found and shortened."""
    empty = bench.build / "no-known.md"
    empty.write_text("nothing is known\n")
    words = ["--accel", "none", "--known", empty, "--limit", 1]
    words += ["--program", HERE.parent / "diff" / "ioapic-level.prog"]
    results, run = diff(bench, words, 300)
    run.expect_status(1)
    expect(not results["ok"], "the results say that all is well")
    found = results["findings"][0]
    expect(len(found["program"]) <= 8, f"shortened to {len(found['program'])} operations only")
    expect(found["linux"] != found["libvapic"], f"no difference: {found}")


def hosts():
    yield "6.1", None
    for name, file in OTHER_HOSTS.items():
        if (DEPS / file).exists():
            yield name, DEPS / file


def long_run(bench, host, kernel, profile, ops):
    words = ["--profile", profile, "--seed", SEED, "--ops", ops, "--length", 300]
    words += ["--host-kernel", kernel] if kernel else []
    compare(bench, f"diff-long-{host}-{profile}", words, ops // 4, timeout=8 * 3600)


def long_row(host, kernel, profile, ops):
    return (f"diff-long-{host}-{profile}",
            lambda bench: long_run(bench, host, kernel, profile, ops))


ROWS = [
    ("diff-programs", by_hand),
    ("diff-random", random),
    ("diff-finds", lambda bench: bench.check("diff-finds", lambda: a_difference_is_found(bench))),
]

# A million operations in each mode with the profile that differs least; fewer with the other.
LONG_ROWS = [
    long_row(host, kernel, profile, ops)
    for host, kernel in hosts()
    for profile, ops in (("kvm", 1_000_000), ("manual", 200_000))
]
