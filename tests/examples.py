"""Runs the "Examples" of the READMEs.

A fence `sh` needs only Python, `sh root` needs what `colo lab` needs. The commands run in a folder that contains only
the captures that they name. A fence `text` after it says what is printed: each of its lines must appear, in order; `…`
stands for any text.
"""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import packets
from colo_runtime.capture import CaptureWriter

ROOT = Path(__file__).parents[1]
READMES = sorted(ROOT.glob("services/colo_*/README.md"))
EXAMPLES = re.compile(r"^## Examples\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
FENCE = re.compile(
    r"^```sh(?P<needs>[^\n]*)\n(?P<commands>.*?)^```\n(?:\n```text\n(?P<said>.*?)^```\n)?", re.MULTILINE | re.DOTALL
)
ADDRESS = "127.0.0.1:9100"
"""The port that examples give to `--http`. A free port replaces it, because this one may be in use."""

NOON, LATER = "12:00:00", "12:00:01"
CLIENT = (
    "S seq 499 mss 1460",
    "A 500 1000",
    r'PA 500 1000 "GET / HTTP/1.1\r\nHost: guest\r\n\r\n"',
    "FA 531 1081",
)


@dataclass(frozen=True)
class Example:
    """One fence."""

    name: str
    needs: str
    commands: str
    said: str


def examples():
    """All examples."""
    found = []
    for readme in READMES:
        section = EXAMPLES.search(readme.read_text())
        for at, one in enumerate(FENCE.finditer(section[1] if section else ""), 1):
            name = f"{readme.parent.name.removeprefix('colo_')}-{at}"
            found.append(Example(name, one["needs"].strip(), one["commands"], one["said"] or ""))
    return found


def run(example, directory, wrapper=()):
    """Run an example, and check what it prints."""
    captures(directory)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COLO_")}
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    commands = example.commands.replace(ADDRESS, f"127.0.0.1:{_free_port()}")
    command = [*wrapper, "bash", "-euo", "pipefail", "-c", commands]
    process = subprocess.Popen(
        command, cwd=directory, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        out, _ = process.communicate(timeout=100)
    finally:
        # Processes that an example leaves in the background end with it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, out
    lines = iter(out.splitlines())
    for wanted in example.said.splitlines():
        pattern = re.compile(".*".join(re.escape(part) for part in wanted.split("…")))
        assert any(pattern.fullmatch(line.rstrip()) for line in lines), f"{wanted!r} is not in, or not in order:\n{out}"


def captures(directory):
    """A request, equal answers of two guests in different segments, and that of one whose clock is a second ahead."""
    head, body = _answer(NOON)
    late, _ = _answer(LATER)
    opening, end = "SA 999 500 mss 1460", "FA 1081 532"
    _write(directory / "clients.pcap", CLIENT, "c")
    _write(directory / "primary.pcap", (opening, f'PA 1000 531 "{head}{body}"', end), "g")
    _write(directory / "secondary.pcap", (opening, f'A 1000 531 "{head}"', f'PA 1075 531 "{body}"', end), "g")
    _write(directory / "late.pcap", (opening, f'PA 1000 531 "{late}{body}"', end), "g")


def _answer(time):
    return rf"HTTP/1.1 200 OK\r\nDate: Sat, 28 Nov 2026 {time} GMT\r\nContent-Length: 6\r\n\r\n", r"hello\n"


def _write(path, lines, side):
    with path.open("wb") as out:
        writer = CaptureWriter(out)
        for at, line in enumerate(lines):
            writer.write(bytes(packets.parse(packets.tokens(line), side).frame()[10:]), 1_795_867_200 + at / 100)


def _free_port():
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]
