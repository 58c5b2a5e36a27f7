# SPDX-License-Identifier: MIT
"""What all rows of the guest tests share: the build's programs, finished runs, results as TAP."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
DEPS = pathlib.Path(os.environ.get("VAPIC_RIG_DIR", HERE.parents[1] / "build" / "deps"))

MODES = [(apic, timer) for apic in ("xapic", "x2apic") for timer in ("tsc-deadline", "oneshot")]


class Failure(Exception):
    """What a row found wrong."""


def expect(condition, text):
    if not condition:
        raise Failure(text)


class Tap:
    """Numbers the tests and prints one line for each."""

    def __init__(self):
        self.count = 0
        self.failed = 0

    def result(self, name, why=None, note="", evidence=""):
        self.count += 1
        self.failed += why is not None
        print(f"{'ok' if why is None else 'not ok'} {self.count} - {name}{note}")
        if why is not None:
            for line in [*why.splitlines(), *evidence.splitlines()[-25:]]:
                print(f"# {line}")
        sys.stdout.flush()

    def end(self):
        for name in frozen:
            print(f"# the emulator froze in: {name}")
        print(f"# the emulator froze {len(frozen)} times")
        print(f"1..{self.count}")
        return 1 if self.failed else 0


OUTPUTS = ("console", "errors")


def output_file(keep, end):
    return open(f"{keep}.{end}", "w+b") if keep else tempfile.TemporaryFile()


def contents(file):
    file.seek(0)
    return file.read()


# How the rig says that its emulator stands still, which is no verdict on what ran there.
FROZE = "rig: the emulator froze"
frozen = []  # the names of the runs to which that happened


class Run:
    """One finished command: exit status, both outputs, seconds. `keep` names files that hold the
    outputs afterwards and can be watched meanwhile. When the emulator froze: once more."""

    def __init__(self, words, timeout, keep=None, **options):
        self.execute(words, timeout, keep, **options)
        if FROZE in self.errors:
            frozen.append(" ".join(map(str, words))[:200])
            evidence = [line for line in self.errors.splitlines() if line.startswith("rig")]
            print("\n".join(f"# {line}" for line in ["the emulator froze, once more", *evidence]))
            sys.stdout.flush()
            self.execute(words, timeout, keep, **options)

    def execute(self, words, timeout, keep, **options):
        start = time.monotonic()
        options = {"stdin": subprocess.DEVNULL, **options}
        words = [str(word) for word in words]
        with contextlib.ExitStack() as stack:
            out, errors = (stack.enter_context(output_file(keep, end)) for end in OUTPUTS)
            try:
                done = subprocess.run(words, stdout=out, stderr=errors, timeout=timeout, **options)
                self.status = done.returncode
            except subprocess.TimeoutExpired:
                self.status = None
            self.raw, errors = contents(out), contents(errors)
        self.seconds = time.monotonic() - start
        self.console = self.raw.decode(errors="replace").replace("\r", "")
        self.errors = errors.decode(errors="replace")

    def evidence(self):
        return f"{self.console[-1500:]}\n{self.errors[-1500:]}"

    def expect_status(self, status):
        expect(self.status is not None, f"no end within {self.seconds:.0f} s")
        expect(self.status == status, f"exit status {self.status}, expected {status}")


class Bench:
    """What the rows need: the build's programs and the results."""

    def __init__(self, build, keep, jobs):
        self.build = build
        self.keep = keep
        self.jobs = jobs
        self.tap = Tap()
        self.vapic = build / "cli" / "vapic"
        self.rig_exec = build / "tests" / "rig" / "rig-exec"
        self.kvm_log = build / "tests" / "rig" / "kvm-log"

    def kept(self, name):
        return self.keep / name if self.keep else None

    def check(self, name, test, run=None):
        """One test: `test` raises Failure when something is wrong."""
        note = f" # {run.seconds:.1f} s" if run else ""
        try:
            test()
            self.tap.result(name, note=note)
        except Failure as why:
            self.tap.result(name, str(why), note, run.evidence() if run else "")


def program_files(program):
    """--file options that bring a program and its shared objects into the rig."""
    yield f"--file={program}=/rig/bin/{program.name}"
    listing = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    for line in listing.splitlines():
        words = line.split()
        if "=>" in words and words[2].startswith("/"):
            yield f"--file={words[2]}=/rig/lib/{os.path.basename(words[2])}"
        elif words and words[0].startswith("/"):
            yield f"--file={words[0]}={words[0]}"


def stats_of(errors):
    """What --stats json has printed among other things."""
    start = errors.find("{\n")
    expect(start >= 0, "no statistics were printed")
    return json.loads(errors[start : errors.rindex("}") + 1])
