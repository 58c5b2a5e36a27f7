# SPDX-License-Identifier: MIT
"""What rows with modelled acceleration ask for, and what their statistics must show.

A row names one of MODES, and maybe disturbances: reasons that are toggled, vCPUs that move. The
statistics must then show that the model did its part (EVIDENCE), that the disturbances happened as
often as asked for, and that no reason is left at the end.
"""

from typing import NamedTuple

from bench import expect

MODES = ("avic", "avic-noipiv", "x2avic", "apicv", "apicv-ipiv")

# Counters of the model that are above zero after any load on several processors, and those that are
# zero for want of the feature. `posted` counts doorbells and notifications that software sends.
EVIDENCE = {
    "avic": ("accelerated delivered doorbells", "notifications"),
    "avic-noipiv": ("accelerated delivered posted", "doorbells notifications"),
    "x2avic": ("accelerated delivered doorbells", "notifications"),
    "hybrid": ("delivered posted", "notifications"),
    "apicv": ("accelerated delivered posted", "doorbells notifications"),
    "apicv-ipiv": ("accelerated delivered notifications", "doorbells"),
    "apicv-ipiv, logical": ("accelerated delivered posted", "doorbells notifications"),
}

# Of the changes that a script asks for, so many must happen. The host may lose some time.
SHARE_OF_CHANGES = 0.95
MOVES_PER_SECOND = 10


class Disturbance(NamedTuple):
    """Scripts of a row: REASON@PERIOD in milliseconds, and the period of moves."""

    inhibit: tuple = ()
    pause_ms: int = 0

    def words(self):
        for reason, period in self.inhibit:
            yield from ("--inhibit", f"{reason}@{period}ms")
        if self.pause_ms:
            yield from ("--pause-vcpu", f"{self.pause_ms}ms")


CALM = Disturbance()
# 100 changes a second.
TOGGLED = Disturbance((("BLOCKIRQ", 20),))
MOVED = Disturbance((("BLOCKIRQ", 20),), 3)
# Two reasons that overlap: a change of one is often no change of the whole.
OVERLAPPING = Disturbance((("BLOCKIRQ", 20), ("HYPERV", 34)))


def is_hybrid(accel, apic):
    """x2APIC guests on AVIC that knows xAPIC only: software does the registers."""
    return accel in ("avic", "avic-noipiv") and apic == "x2apic"


def deviations(accel, apic):
    """Of those in tests/deviations.h, the ones that the guests come across."""
    if accel == "none":
        return ()
    if is_hybrid(accel, apic):
        return ("delivered-while-soft-disabled",)
    by_ipi = ("posted-while-soft-disabled", "stale-trigger-mode")
    if "avic" in accel:
        return (*by_ipi, "delivered-while-soft-disabled", "reserved-offset-is-memory")
    return by_ipi


def words_of(accel, disturbance=CALM):
    return ["--accel", accel, *disturbance.words()]


def case_of(accel, apic, logical):
    if is_hybrid(accel, apic):
        return "hybrid"
    return f"{accel}, logical" if logical and accel == "apicv-ipiv" else accel


def check_evidence(stats, case):
    counts = stats["total"]["silicon"]
    above, zero = EVIDENCE[case]
    for name in above.split():
        expect(counts[name] > 0, f"{name} is zero: {counts}")
    for name in zero.split():
        expect(counts[name] == 0, f"{name} is {counts[name]}")


def check_script(stats, script):
    """The changes that the time asks for, those that were made, and those that the VM saw."""
    due = stats["seconds"] / (script["period_ns"] / 2e9)
    for name in ("requested", "happened"):
        expect(
            script[name] >= SHARE_OF_CHANGES * due,
            f"{script['reason']}: {script[name]} changes {name}, {due:.0f} were due",
        )
    seen = stats["accel"]["inhibit_changes"]
    expect(seen >= script["happened"] - 1, f"the VM saw {seen} changes of {script}")


def check_disturbance(stats, disturbance):
    accel, moves = stats["accel"], stats["total"]["silicon"]["moves"]
    names = [script["reason"] for script in accel["scripts"]]
    expect(names == [reason for reason, _ in disturbance.inhibit], f"scripts: {names}")
    for script in accel["scripts"]:
        check_script(stats, script)
    least = MOVES_PER_SECOND * stats["seconds"] if disturbance.pause_ms else 0
    expect(moves >= least, f"{moves} moves, fewer than {least:.0f}")


def check(stats, accel, apic, disturbance=CALM, left=0, logical=False):
    """All of it; `left` is the set of reasons that the guest itself leaves behind, `logical` says
    that all its IPIs go to logical destinations, which IPI virtualization leaves to software."""
    report = stats["accel"]
    expect(report["mode"] == accel, f"the model is {report['mode']}")
    expect(report["inhibits"] == left, f"inhibits at the end: {report['inhibits']:#x}")
    expect(report["inhibited"]["any"] < 0.9, f"mostly inhibited: {report['inhibited']}")
    if not left:
        expect(
            report["page_withdrawn"] == is_hybrid(accel, apic),
            f"APIC access page withdrawn: {report['page_withdrawn']}",
        )
    check_evidence(stats, case_of(accel, apic, logical))
    check_disturbance(stats, disturbance)


def summary(stats):
    """One line for whoever reads the results."""
    counts, report = stats["total"]["silicon"], stats["accel"]
    ends = {end: counts[end] for end in ("accelerated", "trap", "fault", "emulated")}
    accesses = sum(ends.values()) or 1
    text = f"# {report['mode']}: {ends['accelerated']} of {accesses} accesses accelerated"
    text += f" ({100 * ends['accelerated'] / accesses:.1f} %), {counts['exits']['total']} exits"
    text += f", {counts['delivered']} delivered, {counts['doorbells']} doorbells"
    text += f", {counts['notifications']} notifications, {counts['posted']} posted"
    for script in report["scripts"]:
        text += f"; {script['reason']}: {script['happened']} of {script['requested']} changes"
        text += f" in {stats['seconds']:.1f} s"
    return text + (f"; {counts['moves']} moves" if report["pause_vcpu_ns"] else "")
