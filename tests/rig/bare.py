# SPDX-License-Identifier: MIT
"""Bare-metal guests, which print TAP themselves: several in one boot of the rig's host, each of
their tests is a test here."""

import itertools
import re
import tempfile
from typing import NamedTuple

import silicon
from bench import MODES, Run, expect, program_files, stats_of

MARK = "@@vapic-row"
LIMIT = 180  # seconds: a guest that waits for an interrupt that was lost says so before

# Of the built-in guest: base-relocate moves the APIC, which ends acceleration for good.
APIC_BASE_MODIFIED = 1 << 6


class Row(NamedTuple):
    name: str
    guest: str  # None: the built-in one
    cpus: int
    apic: str
    timer: str
    accel: str = "none"
    disturbance: silicon.Disturbance = silicon.CALM
    more: str = ""  # further words of the guest's command line
    messages: int = 0  # a storm: so many, at least, for so many seconds
    seconds: int = 0
    left: int = 0  # inhibitions that the guest leaves behind
    switches: int = 0  # so many times at least it changes to KVM's irqchip or back, under way

    @property
    def limit(self):
        return LIMIT + self.messages // 100 + 20 * self.seconds

    @property
    def repeatable(self):
        """The host's time is counted in instructions, so that a busy machine takes no changes away.
        Not on KVM's irqchip: the emulator then delivers an interrupt twice now and then (see
        docs/interchange.md)."""
        return self.messages > 0 and self.switches == 0


def accelerated(guest, cpus, apic, timer, accel):
    short = (guest or "builtin").partition(".")[0]
    left = 0 if guest else APIC_BASE_MODIFIED
    return Row(f"{short}-{cpus}-{apic}-{timer}-{accel}", guest, cpus, apic, timer, accel, left=left)


def storm(name, accel, apic, disturbance, messages, seconds):
    """All processors to all, numbered messages: see guest/builtin/storm.c."""
    more = f"only=load-storm n={messages // 4} seconds={seconds}"
    return Row(f"{name}-{apic}-{accel}", None, 4, apic, "tsc-deadline", accel, disturbance, more,
               messages, seconds)


def switched(name, apic, timer, messages, seconds, switches):
    """What counts exactly while the irqchip changes: messages between processors, edges, levels and
    their EOIs. A lost one, or one too many, fails the guest's own test. The switches take more time
    than the guest: some 20 to 80 messages fit into a second of a busy machine."""
    more = f"only=load-storm* n={messages // 4} seconds={seconds}"
    return Row(f"{name}-4-{apic}-{timer}", None, 4, apic, timer, more=more, messages=messages,
               seconds=seconds, switches=switches)


ACCEL_MODES = [(accel, *mode) for accel in silicon.MODES for mode in MODES]
# Each mode with both kinds of APIC, and the timers in turn.
ACCEL_SHORT = [(accel, apic, timer) for accel in silicon.MODES
               for apic, timer in (("xapic", "tsc-deadline"), ("x2apic", "oneshot"))]
# Each mode once, the kinds of APIC in turn.
ACCEL_ONCE = [ACCEL_SHORT[2 * i + i % 2] for i in range(len(silicon.MODES))]
ACCEL_APICS = [(accel, apic) for accel in silicon.MODES for apic in ("xapic", "x2apic")]

ROWS = [
    *(
        Row(f"builtin-{cpus}-{apic}-{timer}", None, cpus, apic, timer)
        for cpus in (1, 2, 4)
        for apic, timer in MODES
    ),
    *(
        Row(f"traps-{cpus}-{apic}-{timer}", "traps.elf", cpus, apic, timer)
        for cpus in (2, 4)
        for apic, timer in MODES
    ),
    *(accelerated(None, 4, apic, timer, accel) for accel, apic, timer in ACCEL_SHORT),
    *(accelerated("traps.elf", 4, apic, timer, accel) for accel, apic, timer in ACCEL_ONCE),
    *(storm("storm", accel, apic, silicon.TOGGLED, 10_000, 1) for accel, apic in ACCEL_APICS),
    *(storm("storm-moved", accel, apic, silicon.MOVED, 10_000, 1) for accel, apic, _ in ACCEL_ONCE),
    switched("switched", "xapic", "oneshot", 1_000, 1, 8),
    switched("switched", "x2apic", "tsc-deadline", 1_000, 1, 8),
]

LONG_ROWS = [
    *(
        accelerated(guest, cpus, apic, timer, accel)
        for guest, cpus, done in (
            (None, 2, []),
            (None, 4, ACCEL_SHORT),
            ("traps.elf", 2, []),
            ("traps.elf", 4, ACCEL_ONCE),
        )
        for accel, apic, timer in ACCEL_MODES
        if (accel, apic, timer) not in done
    ),
    *(storm("storm-long", *mode, silicon.TOGGLED, 100_000, 30) for mode in ACCEL_APICS),
    *(storm("storm-moved-long", *mode, silicon.MOVED, 100_000, 30) for mode in ACCEL_APICS),
    *(switched("switched-long", *mode, 4_000, 30, 100) for mode in MODES),
]


def guest_command(row):
    offered = "auto" if row.apic == "x2apic" else row.apic
    known = ",".join(("rig", *silicon.deviations(row.accel, row.apic)))
    words = ["vapic", "run", "--engine", "kvm", "--cpus", str(row.cpus), "--apic", offered]
    words += ["--timer", row.timer, "--stats", "json"]
    words += silicon.words_of(row.accel, row.disturbance)
    words += ["--switch-irqchip", "40ms"] if row.switches else []
    words += ["--append", f"'apic={row.apic} timer={row.timer} ref={known} {row.more}'"]
    return " ".join(words + ([f"/rig/guest/{row.guest}"] if row.guest else []))


def script_of(rows):
    """A shell script that runs all rows; a marked line before each, its status and errors after."""
    yield "#!/bin/sh"
    for row in rows:
        yield f"echo '{MARK} {row.name}'"
        yield f"busybox timeout {row.limit} {guest_command(row)} 2>/tmp/errors </dev/null"
        yield f"status=$?; echo; echo '{MARK} status' $status; busybox cat /tmp/errors"


def batches(rows):
    """The rows that share a host: same guest, processors, silicon, and not a long one."""

    def key(row):
        return row.guest, row.cpus, row.accel, row.name if row.seconds >= 30 else row.seconds

    for _, batch in itertools.groupby(rows, key):
        batch = list(batch)
        yield f"from-{batch[0].name}", batch


def run(bench, name, rows):
    with tempfile.NamedTemporaryFile("w", suffix=".sh") as script:
        script.write("\n".join(script_of(rows)) + "\n")
        script.flush()
        words = [bench.rig_exec, "--mem=640", *program_files(bench.vapic)]
        words += ["--icount"] if rows[0].repeatable else []
        for guest in sorted({row.guest for row in rows if row.guest}):
            words.append(f"--file={bench.build / 'guest' / guest}=/rig/guest/{guest}")
        words += ["sh", f"in:{script.name}"]
        return Run(words, timeout=60 + sum(row.limit for row in rows), keep=bench.kept(name))


def report(bench, rows, done):
    for row in rows:
        start = done.console.find(f"{MARK} {row.name}\n")
        end = done.console.find(f"{MARK} ", start + len(MARK) + len(row.name) + 2)
        if start < 0 or end < 0:
            bench.tap.result(row.name, "the rig did not come to this guest", "", done.evidence())
            continue
        after = done.console.find(f"{MARK} ", end + 1)
        tail = done.console[end : after if after >= 0 else None]
        report_row(bench, row, done.console[start:end], *tail.split("\n", 1))
    print(f"# {rows[0].name} to {rows[-1].name}: {done.seconds:.1f} s", flush=True)


def judge(line):
    """Name, note, and what is wrong with a TAP line; None if it is none. A deviation that is known
    must show."""
    match = re.match(r"(not )?ok \d+ - (.*)", line)
    if not match:
        return None
    name, _, note = match[2].partition(" # ")
    if not note.startswith("TODO"):
        return name, f" # {note}" if note else "", "failed" if match[1] else None
    return name, " # deviates as known", None if match[1] else "the known deviation does not show"


def report_row(bench, row, console, status, errors):
    """Each test line of the guest becomes one here; then one for the guest's end."""
    lines = console.splitlines()
    found = 0
    for at, line in enumerate(lines):
        verdict = judge(line)
        if not verdict:
            continue
        found += 1
        title, note, why = verdict
        before = [text for text in lines[max(0, at - 6) : at] if text.startswith("#")]
        bench.tap.result(f"{row.name}: {title}", "\n".join([why, *before]) if why else None, note)
    plan = re.search(r"^1\.\.(\d+)", console, re.MULTILINE)
    why = None
    if status.split()[-1] != "0":
        why = f"exit status {status.split()[-1]}"
    elif not plan or int(plan[1]) != found or found == 0:
        why = f"{found} tests were reported, {plan[1] if plan else 'none'} announced"
    bench.tap.result(f"{row.name}: ends with power-off", why, "", f"{console}\n{errors[-1500:]}")
    if row.accel != "none":
        bench.check(f"{row.name}: silicon", lambda: check_silicon(row, errors))
    if row.switches:
        bench.check(f"{row.name}: switches", lambda: check_switches(row, errors))
    if row.messages:
        bench.check(f"{row.name}: messages", lambda: check_messages(row, console, errors))


def check_silicon(row, errors):
    stats = stats_of(errors)
    print(silicon.summary(stats))
    silicon.check(stats, row.accel, row.apic, row.disturbance, row.left)


def check_switches(row, errors):
    stats = stats_of(errors)
    longest = 1000 * stats["switch_seconds_max"]
    print(f"# {stats['switches']} switches, the longest took {longest:.0f} ms")
    expect(stats["switches"] >= row.switches, f"{stats['switches']} switches, not {row.switches}")


def check_messages(row, console, errors):
    """As many as asked for, for as long as asked for; the guest has compared what was received."""
    counts = {}
    for name in ("sent", "taken"):
        found = re.findall(rf"^# stat load-storm-{name} \d+ (\d+)$", console, re.MULTILINE)
        counts[name] = sum(map(int, found))
    seconds = stats_of(errors)["seconds"]
    print(f"# {counts['sent']} messages sent, {counts['taken']} taken in {seconds:.1f} s")
    expect(counts["sent"] == counts["taken"], f"{counts}")
    expect(counts["sent"] >= row.messages, f"{counts['sent']} messages, not {row.messages}")
    expect(seconds >= row.seconds, f"{seconds} s, not {row.seconds}")
