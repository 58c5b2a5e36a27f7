# SPDX-License-Identifier: MIT
"""`vapic diff` in the rig: libvapic in every mode against the APIC of the host's kernel. Each mode
and profile is a test here, and that nothing unexplained was found; see docs/differential.md."""

import json
import signal
import subprocess

from bench import DEPS, HERE, Run, expect

SEED = 20261120
MODES = ("none", "avic", "avic-noipiv", "x2avic", "apicv", "apicv-ipiv")
PROFILES = ("manual", "kvm")
PROGRAMS = sorted((HERE.parent / "diff").glob("*.prog"))

# Of Debian 12, 13 and sid. One that is not there is a failure: nothing was compared with it.
HOSTS = {"6.1": "vmlinuz", "6.12": "vmlinuz-trixie", "sid": "vmlinuz-sid"}


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
    compare(bench, "diff-random-kvm", words, 1800, timeout=900)
    words = ["--profile", "manual", "--seed", SEED + 1, "--ops", 900]
    compare(bench, "diff-random-manual", words, 900, timeout=900)


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


def a_signal_ends_it(bench):
    """SIGTERM in the middle of it: what was compared until then is printed, the status is 1."""
    words = [bench.vapic, "diff", "--engine", "rig", "--json", "--accel", "none"]
    words += ["--profile", "kvm", "--seed", SEED, "--ops", 1_000_000]
    words = [str(word) for word in words]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe) as run:
        try:
            first = run.stderr.readline()
            while first and b" operations, " not in first:
                first = run.stderr.readline()
            run.send_signal(signal.SIGTERM)
            output, errors = run.communicate(timeout=120)
        finally:
            run.kill()
    expect(run.returncode == 1, f"exit status {run.returncode}: {errors[-1500:].decode()}")
    results = json.loads(output)
    expect(results["interrupted"] and not results["ok"], f"it ended by itself: {results}")
    expect(results["runs"][0]["operations"] > 0, f"nothing was compared: {results}")


def long_run(bench, host, file, profile, ops):
    """`ops` operations are compared in each mode; what rules cut off does not count."""
    name = f"diff-long-{host}-{profile}"
    kernel = DEPS / file
    if not kernel.exists():
        bench.tap.result(name, f"no {kernel}: `tools/deps.sh --suite NAME` fetches it")
        return
    words = ["--profile", profile, "--seed", SEED, "--ops", ops, "--length", 600]
    words += ["--host-kernel", kernel]
    compare(bench, name, words, ops, timeout=12 * 3600)


def long_row(host, file, profile, ops):
    return (f"diff-long-{host}-{profile}",
            lambda bench: long_run(bench, host, file, profile, ops))


ROWS = [
    ("diff-programs", by_hand),
    ("diff-random", random),
    ("diff-finds", lambda bench: bench.check("diff-finds", lambda: a_difference_is_found(bench))),
    ("diff-signal", lambda bench: bench.check("diff-signal", lambda: a_signal_ends_it(bench))),
]

# Operations to be compared in each mode, a million of them with the profile that differs least.
LONG_ROWS = [
    long_row(host, file, profile, ops)
    for host, file in HOSTS.items()
    for profile, ops in (("kvm", 1_000_000), ("manual", 200_000))
]
