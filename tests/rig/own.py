# SPDX-License-Identifier: MIT
"""The rig itself, and what only it can see: exit statuses, byte streams, files, errors, signals."""

import fcntl
import json
import os
import pathlib
import pty
import re
import select
import signal
import subprocess
import tempfile
import termios
import time

import silicon
from bench import FROZE, Run, expect, program_files, stats_of

EVERY_MODE = ["none", *silicon.MODES]

# No call that makes KVM emulate an interrupt controller, or that only makes sense with one.
KVM_CAP_SPLIT_IRQCHIP = 121
IRQCHIP_CALLS = {
    "KVM_CREATE_IRQCHIP",
    "KVM_CREATE_PIT",
    "KVM_CREATE_PIT2",
    f"KVM_ENABLE_CAP:{KVM_CAP_SPLIT_IRQCHIP}",
    "KVM_GET_LAPIC",
    "KVM_IRQFD",
    "KVM_IRQ_LINE",
    "KVM_IRQ_LINE_STATUS",
    "KVM_SET_GSI_ROUTING",
    "KVM_SET_IRQCHIP",
    "KVM_SET_LAPIC",
    "KVM_SIGNAL_MSI",
}


def rig_no_irqchip(bench):
    """The system calls of a whole run: no interrupt controller was created in the kernel."""
    with tempfile.TemporaryDirectory() as room:
        log = pathlib.Path(room) / "log"
        words = [bench.rig_exec, "--mem=640", *program_files(bench.vapic)]
        words += [f"--file={bench.kvm_log}=/rig/bin/kvm-log", "kvm-log", f"out:{log}"]
        words += ["vapic", "run", "--engine", "kvm", "--cpus", "2", "--append", "only=ipi*"]
        run = Run(words, timeout=240)
        calls = dict(line.split() for line in log.read_text().splitlines())
    run.expect_status(0)
    expect("KVM_CREATE_VM" in calls and "KVM_INTERRUPT" in calls, f"the log is empty: {calls}")
    expect(not IRQCHIP_CALLS & set(calls), f"made: {IRQCHIP_CALLS & set(calls)}")


def rig_exit_status(bench):
    for status in (0, 139, 255):
        words = [bench.rig_exec, "sh", "-c", f"echo out; echo err >&2; exit {status}"]
        run = Run(words, timeout=120)
        run.expect_status(status)
        expect(run.console == "out\n", f"standard output: {run.console!r}")
        expect(run.errors == "err\n", f"standard error: {run.errors!r}")


def rig_bytes(bench):
    """Input, output and files arrive byte for byte, however slow the reader."""
    data = os.urandom(700_001)
    with tempfile.TemporaryDirectory() as room:
        source, target = pathlib.Path(room) / "in put", pathlib.Path(room) / "o'ut"
        source.write_bytes(data)
        program = 'busybox head -c 5000; busybox cat "$0"; busybox cat "$0" >"$1"'
        words = [bench.rig_exec, "sh", "-c", program, f"in:{source}", f"out:{target}"]
        run = Run(words, timeout=120, stdin=None, input=data[:5000])
        run.expect_status(0)
        expect(run.raw == data[:5000] + data, f"{len(run.raw)} bytes of output differ")
        expect(target.read_bytes() == data, "the file that was written differs")


def alive(pid):
    """Whether a process runs: one that only waits to be reaped does not."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def rig_signal(bench):
    """SIGTERM reaches the command, whose own exit status comes back; nothing is left running."""
    program = "trap 'echo bye; exit 9' TERM; echo ready; while :; do busybox sleep 1; done"
    words = [str(bench.rig_exec), "sh", "-c", program]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as rig:
        first = rig.stdout.readline()
        children = pathlib.Path(f"/proc/{rig.pid}/task/{rig.pid}/children").read_text().split()
        rig.send_signal(signal.SIGTERM)
        rest = rig.stdout.read()
        status = rig.wait(timeout=60)
    expect((first, rest) == (b"ready\n", b"bye\n"), f"output {first!r}, {rest!r}")
    expect(status == 9, f"exit status {status}, expected 9")
    expect(len(children) == 1, f"{len(children)} emulators")
    expect(not alive(children[0]), "the emulator still runs")


def rig_terminal(bench):
    """On a terminal: keys arrive one by one and unchanged, Ctrl-A x quits, its mode comes back."""
    controller, terminal = pty.openpty()
    before = termios.tcgetattr(terminal)
    words = [str(bench.rig_exec), "sh", "-c", "echo ready; busybox cat"]
    start = {"stdin": terminal, "stdout": terminal, "stderr": terminal, "start_new_session": True}
    with subprocess.Popen(
        words, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0), **start
    ) as rig:
        try:
            seen = read_until(controller, b"ready")
            os.write(controller, b"\x03key\x01\x01")
            seen += read_until(controller, b"\x03key\x01")
            os.write(controller, b"\x01x")
            status = rig.wait(timeout=60)
        finally:
            rig.kill()
    expect(seen.endswith(b"ready\r\n\x03key\x01"), f"the terminal showed {seen!r}")
    expect(status == 1, f"exit status {status} after Ctrl-A x, expected 1")
    expect(termios.tcgetattr(terminal) == before, "the terminal's mode was not restored")
    os.close(controller)
    os.close(terminal)


def read_until(descriptor, text):
    """What a terminal shows, until `text` is in it; at most two minutes."""
    seen = b""
    end = time.monotonic() + 120
    while text not in seen:
        ready, _, _ = select.select([descriptor], [], [], max(0, end - time.monotonic()))
        expect(ready, f"no {text!r} on the terminal, but {seen!r}")
        seen += os.read(descriptor, 4096)
    return seen


def rig_vapic_run(bench):
    """`vapic run` itself: console, statistics and trace file come out where they belong."""
    with tempfile.TemporaryDirectory() as room:
        trace = pathlib.Path(room) / "trace"
        words = [bench.vapic, "run", "--engine", "rig", "--cpus", "2", "--stats", "text"]
        run = Run([*words, "--trace", trace, "--append", "only=ipi-self*"], timeout=120)
        lines = trace.read_text().splitlines()
    run.expect_status(0)
    expect(re.search(r"^1\.\.[1-9]", run.console, re.MULTILINE), "the guest printed no TAP")
    expect("vCPU 1" in run.errors, f"no table of statistics in {run.errors!r}")
    expect(len(lines) > 10, f"{len(lines)} lines of trace")


def json_trace(path):
    """The events of a trace in JSON: its form is checked, and that no slice stays open."""
    document = json.loads(path.read_text())
    expect(document["otherData"]["clock"] == "CLOCK_MONOTONIC", "the clock is not named")
    events = document["traceEvents"]
    for event in events:
        expect({"name", "ph", "ts", "pid", "tid"} <= set(event), f"incomplete: {event}")
        expect(event["ph"] in "iXBEM", f"of no known phase: {event}")
        expect(event["ph"] != "X" or event["dur"] >= 0, f"without an end: {event}")
    opened = sum({"B": 1, "E": -1}.get(event["ph"], 0) for event in events)
    expect(opened == 0, f"{opened} slices stay open")
    return events


def rig_trace_json(bench):
    """--trace FILE.json: what comes out of the rig is whole, with both processors on it."""
    with tempfile.TemporaryDirectory() as room:
        trace = pathlib.Path(room) / "a.perfetto.json"
        words = [bench.vapic, "run", "--engine", "rig", "--cpus", "2", "--trace", trace]
        run = Run([*words, "--append", "only=ipi-*"], timeout=120)
        run.expect_status(0)
        events = json_trace(trace)
    for phase, name in (("i", "kvm_apic_ipi"), ("i", "kvm_eoi"), ("X", "guest")):
        tracks = {event["tid"] for event in events if (event["ph"], event["name"]) == (phase, name)}
        expect(tracks == {1, 2}, f"{name} is on the tracks {tracks}")
    expect(any(event["name"] == "blocked" for event in events), "nobody ever slept")


def rig_trace_signal(bench):
    """A run that SIGTERM ends leaves a whole trace."""
    with tempfile.TemporaryDirectory() as room:
        trace = pathlib.Path(room) / "trace.json"
        words = [bench.vapic, "run", "--engine", "rig", "--stats", "none", "--trace", trace]
        end = time.monotonic() + 100
        with subprocess.Popen(
            [str(word) for word in words], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        ) as run:
            while not trace.exists() or trace.stat().st_size < 100_000:
                expect(run.poll() is None and time.monotonic() < end, "no trace appears")
                time.sleep(0.02)
            run.send_signal(signal.SIGTERM)
            status = run.wait(timeout=60)
        events = json_trace(trace)
    expect(status != 0, "the run had ended before")
    expect(len(events) > 300, f"only {len(events)} events")


def rig_trace_full(bench):
    """A full disk does not disturb the guest; the command says it at the end."""
    words = [bench.rig_exec, "--mem=640", *program_files(bench.vapic), "vapic", "run"]
    words += ["--engine", "kvm", "--cpus", "2", "--trace", "/dev/full", "--append", "only=ipi-*"]
    run = Run(words, timeout=120)
    run.expect_status(2)
    expect("# 0 of " in run.console, "the guest did not come to its end")
    line = "vapic run: --trace: /dev/full is incomplete: No space left on device\n"
    expect(line in run.errors, f"said: {run.errors!r}")


def probes_of(program):
    """USDT probes: name, file offsets of the place and of the semaphore. [sys/sdt.h's notes]"""
    listing = subprocess.run(["readelf", "-WSn", program], capture_output=True, text=True)
    sections = {}
    probes = []
    for line in listing.stdout.splitlines():
        if section := re.match(r" *\[ *\d+\] (\S+) +\S+ +([0-9a-f]+) ([0-9a-f]+) ", line):
            sections[section[1]] = int(section[2], 16) - int(section[3], 16)
        elif name := re.match(r" +Name: (\w+)", line):
            probes.append([name[1]])
        elif place := re.match(r" +Location: (\w+), Base: \w+, Semaphore: (\w+)", line):
            probes[-1] += [int(place[1], 16) - sections[".text"]]
            probes[-1] += [int(place[2], 16) - sections[".probes"]]
    return probes


def rig_probes(bench):
    """The kernel's uprobes at the USDT probes count what the trace file has."""
    program = f"/rig/bin/{bench.vapic.name}"
    tracing = "/sys/kernel/debug/tracing"
    script = "busybox mount -t debugfs none /sys/kernel/debug\n"
    for name, place, semaphore in probes_of(bench.vapic):
        probe = f"p:vapic/{name} {program}:{place:#x}({semaphore:#x})"
        script += f"echo '{probe}' >>{tracing}/uprobe_events\n"
    script += f"echo 1 >{tracing}/events/vapic/enable\n"
    script += 'vapic run --engine kvm --cpus 2 --append "only=ipi-*" "$@"\n'
    script += f"cat {tracing}/uprobe_profile >$0\n"
    with tempfile.TemporaryDirectory() as room:
        hits, trace = pathlib.Path(room) / "hits", pathlib.Path(room) / "trace"
        words = [bench.rig_exec, "--mem=640", *program_files(bench.vapic), "sh", "-c", script]
        run = Run([*words, f"out:{hits}", "--trace", f"out:{trace}"], timeout=240)
        counts = {line.split()[1]: int(line.split()[2]) for line in hits.read_text().splitlines()}
        text = trace.read_text()
        silent = Run([*words, f"out:{hits}"], timeout=240)
        alone = {line.split()[1]: int(line.split()[2]) for line in hits.read_text().splitlines()}
    run.expect_status(0)
    silent.expect_status(0)
    expect(counts.get("kvm_eoi", 0) > 10, f"too few hits: {counts}\n{run.evidence()}")
    for name, count in counts.items():
        lines = len(re.findall(rf"\d: {name}: ", text))
        expect(count == lines, f"{name}: {count} hits, {lines} lines")
    expect(alone["kvm_eoi"] > 10, f"without a trace file: {alone}")


def rig_accel_all(bench):
    """--accel all: the same guest once per mode, and a table that compares them."""
    words = [bench.vapic, "run", "--engine", "rig", "--cpus", "2", "--accel", "all"]
    words += ["--append", "only=load-running"]
    run = Run([*words, "--stats", "json"], timeout=240)
    run.expect_status(0)
    expect(run.console.count("# 0 of 1 tests failed") == len(EVERY_MODE), "a run is missing")
    runs = json.loads(run.errors)["runs"]  # and not a word beside it
    modes = [row["accel"] for row in runs]
    expect(modes == EVERY_MODE, f"the modes are {modes}")
    for row in runs:
        expect(row["status"] == 0 and row["boots"] == 1, f"not as it should be: {row}")
        expect((row["delivered"] > 0) == (row["accel"] != "none"), f"delivered by hardware: {row}")
    text = Run([*words, "--stats", "text"], timeout=240)
    text.expect_status(0)
    head = re.search(r"^vapic: accel +(.*)$", text.errors, re.MULTILINE)
    expect(head and head[1].split() == EVERY_MODE, f"no heading: {text.errors!r}")
    for name in ("seconds", "accelerated %", "exits", "delivered", "doorbells"):
        row = re.search(rf"^{name}((?: +[\d.]+){{{len(EVERY_MODE)}}})$", text.errors, re.MULTILINE)
        expect(row, f"no row '{name}': {text.errors!r}")


def rig_accel_auto(bench):
    """--accel auto: the silicon of the user's own processor, whatever that is; it says which."""
    words = [bench.vapic, "run", "--engine", "rig", "--cpus", "2", "--accel", "auto"]
    words += ["--append", "only=load-running"]
    text = Run([*words, "--stats", "text"], timeout=120)
    text.expect_status(0)
    said = re.search(r"^vapic run: accel (\S+): ", text.errors, re.MULTILINE)
    expect(said and said[1] in EVERY_MODE, f"no mode is named: {text.errors!r}")
    run = Run([*words, "--stats", "json"], timeout=120)
    run.expect_status(0)
    mode = stats_of(run.errors).get("accel", {}).get("mode", "none")
    expect(mode == said[1], f"it ran {mode} and says {said[1]}")


def rig_frozen(bench):
    """A frozen emulator: the verdict, and what it was doing, from inside the sandbox."""
    words = [str(bench.vapic), "run", "--engine", "rig"]
    with subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "VAPIC_RIG_SILENCE": "10"},
    ) as rig:
        try:
            rig.stdout.readline()
            children = pathlib.Path(f"/proc/{rig.pid}/task/{rig.pid}/children").read_text().split()
            os.kill(int(children[0]), signal.SIGSTOP)
            errors = rig.communicate(timeout=90)[1].decode()
        finally:
            rig.kill()
    expect(rig.returncode == 2, f"exit status {rig.returncode}: {errors[-1500:]}")
    expect(errors.count(f"{FROZE}: no sign of life for 10 s") == 2, f"says {errors[-1500:]}")
    expect(FROZE in errors.partition("rig evidence: ")[0], "the verdict does not come first")
    expect(re.search(r"^rig evidence: thread .* state T", errors, re.MULTILINE), "no threads")


def rig_orphan(bench):
    """The emulator dies with its parent, even when that is killed."""
    words = [str(bench.rig_exec), "sh", "-c", "echo ready; busybox sleep 100"]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as rig:
        rig.stdout.readline()
        children = pathlib.Path(f"/proc/{rig.pid}/task/{rig.pid}/children").read_text().split()
        rig.kill()
        rig.wait()
    time.sleep(1)
    expect(len(children) == 1, f"{len(children)} emulators")
    expect(not alive(children[0]), "the emulator still runs")


def rig_errors(bench):
    """What is missing is named in one line, with what to do; the status is 2."""
    nowhere = "/nonexistent"
    table = [
        ({"VAPIC_RIG_QEMU": nowhere}, [], "VAPIC_RIG_QEMU: cannot execute '/nonexistent'"),
        ({"PATH": nowhere}, [], "apt-get install qemu-system-x86"),
        ({"VAPIC_RIG_DIR": nowhere}, [], "run 'make build'"),
        ({}, [f"--kernel={bench.vapic}"], "is no Linux kernel image"),
        ({}, [f"in:{nowhere}"], "cannot read '/nonexistent'"),
        ({}, ["in:/dev"], "no regular file"),
        ({}, ["out:/nonexistent/file"], "cannot write '/nonexistent/file'"),
    ]
    for environment, words, text in table:
        options = [word for word in words if word.startswith("--")]
        rest = [word for word in words if not word.startswith("--")]
        words = [bench.rig_exec, *options, "sh", *rest]
        run = Run(words, timeout=60, env={**os.environ, **environment})
        run.expect_status(2)
        expect(text in run.errors, f"no '{text}' in {run.errors!r}")
        expect(run.errors.count("\n") == 1, f"more than one line: {run.errors!r}")


def rig_bad_start(bench):
    """A host that cannot boot: one restart, its log, a precise line, status 2."""
    with tempfile.TemporaryDirectory() as room:
        emulator = pathlib.Path(room) / "emulator"
        emulator.write_text("#!/bin/sh\necho the emulator says no >&2\nexit 1\n")
        emulator.chmod(0o755)
        run = Run([bench.rig_exec, "sh"], 60, env={**os.environ, "VAPIC_RIG_QEMU": str(emulator)})
    run.expect_status(2)
    expect(run.errors.count("the emulator says no") == 2, f"not started twice: {run.errors!r}")
    expect("ended before the host was up" in run.errors, f"no reason in {run.errors!r}")


ROWS = [
    ("rig-no-irqchip", rig_no_irqchip),
    ("rig-exit-status", rig_exit_status),
    ("rig-bytes", rig_bytes),
    ("rig-signal", rig_signal),
    ("rig-terminal", rig_terminal),
    ("rig-vapic-run", rig_vapic_run),
    ("rig-trace-json", rig_trace_json),
    ("rig-trace-signal", rig_trace_signal),
    ("rig-trace-full", rig_trace_full),
    ("rig-probes", rig_probes),
    ("rig-accel-all", rig_accel_all),
    ("rig-accel-auto", rig_accel_auto),
    ("rig-frozen", rig_frozen),
    ("rig-orphan", rig_orphan),
    ("rig-errors", rig_errors),
    ("rig-bad-start", rig_bad_start),
]
