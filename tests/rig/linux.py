# SPDX-License-Identifier: MIT
"""Debian's kernel, each row in a `vapic run --engine rig` of its own."""

import re
from typing import NamedTuple

import silicon
from bench import DEPS, MODES, Run, expect, stats_of

# Vectors that Linux uses, and the name of each counter in /proc/interrupts.
VECTORS = {"LOC": 0xEC, "RES": 0xFD}
# How many of each may come in between the guest's last look at its counters and its end: the way
# there takes longer on a slow machine. With repeatable virtual time there is none.
LATE = {"LOC": 40, "RES": 2}

TIMER = {"tsc-deadline": "lapic-deadline", "oneshot": "lapic"}

# What Linux says of an interrupt that should not have come. Of one that was lost it says nothing
# where it looks again by itself; otherwise it stops, or speaks of lockups and stalls, which it also
# does where the emulator gets too little time. What is lost the rows `switched-*` count (bare.py).
COMPLAINTS = r"nobody cared|spurious|No irq handler|Unexpected|^(ERR|MIS): +[1-9]"
SLOW = r"soft lockup|rcu.*stall"

EXACT = "vapic.load=2 vapic.exact"
REBOOTS = "vapic.load=0 vapic.reboots=kbd,pci,triple"


class Row(NamedTuple):
    name: str
    cpus: int
    apic: str
    timer: str
    more: str  # further words of the guest's command line
    accel: str = "none"
    disturbance: silicon.Disturbance = silicon.CALM
    pv_eoi: bool = True  # whether it is offered
    repeatable: bool = False  # the host has one processor whose time is counted in instructions
    limit: int = 300  # seconds
    irqchip: str = "vapic"  # what the machine boots with
    switches: int = 0  # so many times at least it changes to the other one, under way
    host: str = ""  # the Debian suite whose kernel the host runs; this machine's own


def accelerated(kind, more, accel, apic, timer, disturbance=silicon.CALM, limit=600):
    name = f"linux-{kind}-4-{apic}-{timer}-{accel}"
    return Row(name, 4, apic, timer, more, accel, disturbance, limit=limit)


def kernels(name, *mode, switches=0, more="vapic.load=3", host="", limit=300):
    """On KVM's own interrupt controllers, all the time or in turns with the library's."""
    irqchip = "vapic" if switches else "kernel"
    name = "-".join(["linux", name, "4", *mode, *([host] if host else [])])
    return Row(name, 4, *mode, more, limit=limit, irqchip=irqchip, switches=switches, host=host)


ALL = [(accel, *mode) for accel in silicon.MODES for mode in MODES]
# Each mode with both kinds of APIC, and the timers in turn.
SHORT = [(accel, apic, timer) for accel in silicon.MODES
         for apic, timer in (("xapic", "oneshot"), ("x2apic", "tsc-deadline"))]
# Each mode once, the kinds of APIC in turn.
ONCE = [SHORT[2 * i + i % 2] for i in range(len(silicon.MODES))]

ROWS = [
    *(
        Row(f"linux-{cpus}-{apic}-{timer}", cpus, apic, timer, EXACT)
        for cpus in (1, 2, 4)
        for apic, timer in MODES
    ),
    Row("linux-exact", 1, "x2apic", "tsc-deadline", "vapic.load=1 vapic.exact", repeatable=True),
    Row("linux-no-pv-eoi", 2, "x2apic", "tsc-deadline", EXACT, pv_eoi=False),
    Row("linux-reboots", 2, "x2apic", "auto", REBOOTS),
    kernels("kernel", "x2apic", "tsc-deadline"),
    kernels("switch", "xapic", "oneshot", switches=8),
    kernels("switch", "x2apic", "tsc-deadline", switches=8),
    *(accelerated("accel", EXACT, *mode) for mode in SHORT),
    *(accelerated("toggled", "vapic.load=4", *mode, silicon.OVERLAPPING) for mode in ONCE),
    *(accelerated("reboots", REBOOTS, *mode) for mode in ONCE),
]

LONG_ROWS = [
    *(
        kernels("switch-long", *mode, switches=40, more="vapic.load=30", host=host, limit=900)
        for host in ("", "trixie", "sid")
        for mode in MODES
    ),
    *(kernels("kernel", *mode, host=host) for host in ("trixie", "sid") for mode in MODES),
    kernels("kernel-reboots", "x2apic", "tsc-deadline", more=REBOOTS, limit=600),
    kernels("switch-reboots", "xapic", "oneshot", switches=16, more=REBOOTS, limit=600),
    *(accelerated("accel", EXACT, *mode) for mode in ALL if mode not in SHORT),
    *(
        accelerated("toggled", "vapic.load=30", *mode, silicon.OVERLAPPING, limit=1800)
        for mode in SHORT
    ),
    *(
        accelerated("moved", "vapic.load=10", *mode, silicon.MOVED, limit=1800)
        for mode in SHORT
    ),
    *(accelerated("reboots", REBOOTS, *mode) for mode in SHORT if mode not in ONCE),
]


def words_of(row):
    append = f"console=ttyS0 quiet panic=-1 vapic.cpus={row.cpus} vapic.apic={row.apic} {row.more}"
    if row.timer in TIMER:
        append += f" vapic.timer={TIMER[row.timer]}"
    words = ["run", "--engine", "rig", "--kernel", DEPS / "vmlinuz"]
    words += ["--initrd", DEPS / "guest-linux.cpio", "--mem", "512M", "--cpus", row.cpus]
    words += ["--apic", row.apic, "--timer", row.timer, "--stats", "json", "--append", append]
    words += silicon.words_of(row.accel, row.disturbance)
    words += [] if row.pv_eoi else ["--no-pv-eoi"]
    words += ["--irqchip", row.irqchip] if row.irqchip != "vapic" else []
    # More than are asked for: on a quick machine the guest ends before the last one.
    words += ["--switch-irqchip", f"400ms,{3 * row.switches}"] if row.switches else []
    words += ["--rig-kernel", DEPS / f"vmlinuz-{row.host}"] if row.host else []
    return words + (["--rig-icount"] if row.repeatable else [])


def run(bench, row):
    return Run([bench.vapic, *words_of(row)], timeout=row.limit, keep=bench.kept(row.name))


def counts_of(console, name):
    """The columns of the guest's last `vapic-exact NAME ...` line."""
    found = re.findall(rf"^vapic-exact {name} ([\d ]+)$", console, re.MULTILINE)
    return [int(word) for word in found[-1].split()] if found else None


def check_counts(row, done):
    """The guest's own counters against the library's; so many as LATE says may come later."""
    stats = stats_of(done.errors)
    for name, vector in VECTORS.items():
        guest = counts_of(done.console, name)
        late = 0 if row.repeatable else LATE[name]
        expect(guest is not None, f"the guest reported no {name}")
        expect(len(guest) == row.cpus, f"{len(guest)} columns of {name}, expected {row.cpus}")
        library = [int(cpu["vectors"].get(str(vector), 0)) for cpu in stats["cpus"]]
        for cpu, (seen, injected) in enumerate(zip(guest, library)):
            expect(
                seen <= injected <= seen + late,
                f"vCPU {cpu}: Linux counted {seen} {name}, the library injected {injected}",
            )
        print(f"# {name}: Linux {guest}, library {library}")


def check_pv_eoi(row, done):
    """How interrupts ended: without an exit, wherever that was offered and possible."""
    for cpu, stats in enumerate(stats_of(done.errors)["cpus"]):
        lazy, ends = stats["pv_eois"], stats["eois"]
        if row.pv_eoi:
            expect(0 < lazy <= ends, f"vCPU {cpu}: {lazy} of {ends} EOIs were PV EOIs")
        else:
            expect(lazy == 0 < ends, f"vCPU {cpu}: {lazy} PV EOIs, and none was offered")
        print(f"# vCPU {cpu}: {lazy} of {ends} EOIs by the shared word")


def check_kernels(row, done):
    """That the load found its interrupts on every processor the guest has said itself."""
    stats = stats_of(done.errors)
    complaint = re.search(COMPLAINTS, done.console, re.MULTILINE)
    expect(complaint is None, f"Linux complains: {complaint and complaint[0]}")
    for slow in re.findall(SLOW, done.console):
        print(f"# {row.name}: {slow}: too little time for the emulator?")
    expect(stats["switches"] >= row.switches, f"{stats['switches']} switches, not {row.switches}")
    injected = sum(cpu["injected_vectors"] for cpu in stats["cpus"])
    expect((injected > 0) == (row.switches > 0), f"the library injected {injected} vectors")
    if row.switches:
        longest = 1000 * stats["switch_seconds_max"]
        print(f"# {stats['switches']} switches, the longest took {longest:.0f} ms")


def check_silicon(row, done):
    stats = stats_of(done.errors)
    print(silicon.summary(stats))
    flat = row.apic == "xapic"  # as Linux addresses up to eight processors
    silicon.check(stats, row.accel, row.apic, row.disturbance, logical=flat)


def report(bench, row, done):
    exact = "vapic.exact" in row.more

    def came_to_its_end():
        expect("vapic-success" in done.console, "the guest reported no success")
        done.expect_status(33 if exact else 0)

    bench.check(f"{row.name}: boots, takes its interrupts, ends", came_to_its_end, done)
    if exact:
        bench.check(
            f"{row.name}: counts equal the library's", lambda: check_counts(row, done), done
        )
    if row.switches or row.irqchip == "kernel":
        bench.check(f"{row.name}: Linux misses no interrupt", lambda: check_kernels(row, done))
    elif row.accel == "none":
        title = f"{row.name}: PV EOI {'used' if row.pv_eoi else 'absent'}"
        bench.check(title, lambda: check_pv_eoi(row, done))
    else:
        bench.check(f"{row.name}: silicon", lambda: check_silicon(row, done), done)
    wanted = re.search(r"vapic.reboots=(\S+)", row.more)
    if wanted:
        check_reboots(bench, row, done, wanted[1].split(","))


def check_reboots(bench, row, done, paths):
    for number, path in enumerate(paths, 1):

        def happened(line=f"vapic-reboot {number} through {path}"):
            expect(line in done.console, f"no line '{line}'")

        bench.check(f"{row.name}: {number} through {path}", happened, done)

    def fresh():
        boots = re.findall(r"^vapic-guest cpus (\d+) apic (\S+)", done.console, re.MULTILINE)
        expect(len(boots) == len(paths) + 1, f"{len(boots)} boots, expected {len(paths) + 1}")
        expect(len(set(boots)) == 1, f"the boots differ: {boots}")
        stats = stats_of(done.errors)
        expect(stats["boots"] == len(boots), "the statistics count other boots")
        if row.accel != "none":
            masks = stats["accel"]["inhibits_after_reboot"]
            expect(masks == [0] * len(paths), f"inhibits after the reboots: {masks}")

    bench.check(f"{row.name}: every boot is as the first", fresh, done)
