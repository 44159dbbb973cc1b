"""This ring needs namespaces and taps. Without them each test is skipped, and the reason says what is missing."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from colo_lab import privileges

LAB = [sys.executable, "-P", "-m", "colo_lab"]
SERVER = f"exec {sys.executable} -P -m colo_lab.programs.server"
CLIENT = f"{sys.executable} -P -m colo_lab.programs.client"


class Run(NamedTuple):
    """A lab that has ended."""

    status: int
    report: dict[str, Any]
    lines: list[dict[str, Any]]
    """What the client programs printed."""
    out: str
    err: str


def invoke(*options, client, report=None, timeout=120, env=None):
    """Run `colo lab` until it ends. `client` is a shell command."""
    argv = [*LAB, *options, *(["--report", str(report)] if report else []), "--", "sh", "-c", client]
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=timeout, check=False, stdin=subprocess.DEVNULL, env=env
    )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    read = json.loads(report.read_text()) if report and report.exists() else {}
    return Run(done.returncode, read, lines, done.stdout, done.stderr)


@pytest.fixture
def lab(tmp_path):
    """`lab(*options, client=…)` runs a lab with a report."""
    return lambda *options, **more: invoke(*options, report=tmp_path / "report.json", **more)


@pytest.fixture
def background(tmp_path):
    """Start a lab that continues to run. Returns the process and its state. It ends with the test in any case."""
    running = []

    def start(*options, client="sleep 60", name="state"):
        state = tmp_path / f"{name}.json"
        argv = [*LAB, "--state", str(state), *options, "--", "sh", "-c", client]
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        running.append(process)
        wait_for(lambda: state.exists() or process.poll() is not None, 40, "the lab to be up")
        assert process.poll() is None, process.stderr.read()
        return process, lambda: json.loads(state.read_text())

    yield start
    for process in running:
        if process.poll() is None:
            process.terminate()
            process.wait(20)
        process.stdout.close()
        process.stderr.close()


def wait_for(condition, timeout, what):
    """Poll until `condition()` is true. Returns its value."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    return pytest.fail(f"waited {timeout} s for {what}")


def alive(pid):
    """True while the process runs (a zombie does not)."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def inhabitants(inodes):
    """Processes that live in one of these namespaces."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if os.stat(f"/proc/{name}/ns/net").st_ino in inodes:
                    found.append(int(name))
            except OSError:
                pass
    return found


def namespaces(state):
    """Inode numbers of a running lab's namespaces."""
    return {os.stat(path).st_ino for path in state["namespaces"].values()}


@pytest.fixture(autouse=True, scope="session")
def _machine():
    gaps = privileges.missing()
    if gaps:
        pytest.skip("needs " + ", and ".join(gaps))


@pytest.fixture
def privileged():
    """For tests that make namespaces in their own process."""
    if not privileges.privileged():
        pytest.skip("needs root in this process (the lab itself does not)")
