"""`--rules FILE` and `colo rules` through real processes: at the start, at SIGHUP, told by the frame to all workers."""

import json
import signal
import socket
import struct
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

import craft
from colo_cli.checking import check_file
from colo_cli.cli import main
from colo_proto.errors import ConfigError
from colo_proto.messages import Query
from colo_runtime.client import ask
from colo_runtime.rulesfile import read_rules
from runtime_helpers import PATIENCE

GUEST, CLIENT = "10.0.0.2", "10.0.0.9"


def datagram(payload: bytes, port: int = 53) -> bytes:
    return craft.udp(GUEST, CLIENT, port, 5000, payload)[10:]


def put(sock: socket.socket, ethernet: bytes) -> None:
    sock.sendall(struct.pack("!I", len(ethernet)) + ethernet)


def take(sock: socket.socket) -> bytes:
    head = sock.recv(4, socket.MSG_WAITALL)
    return sock.recv(struct.unpack("!I", head)[0], socket.MSG_WAITALL)


def until(condition, what: str):
    end = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < end, what
        time.sleep(0.02)
    return value


class Worker:
    """A real compare, driven over QEMU's chardevs."""

    def __init__(self, bench, name: str, *more: str) -> None:
        paths = {port: bench.path(f"{name}-{port}") for port in ("pri", "sec", "out")}
        self.bench, self.name = bench, name
        self.process = bench.colo(
            "compare", "--id", name,
            *("--primary-in", f"chardev+unix://{paths['pri']}?server=on"),
            *("--secondary-in", f"chardev+unix://{paths['sec']}?server=on"),
            *("--outdev", f"chardev+unix://{paths['out']}?server=on"),
            *("--log-format", "json"), *more,
        )  # fmt: skip
        self.pri, self.sec, self.out = (bench.unix(paths[port]) for port in ("pri", "sec", "out"))

    def events(self, name: str) -> list[dict]:
        lines = [json.loads(line) for line in self.bench.logs().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name and line["id"] == self.name]

    def loaded(self, count: int) -> None:
        until(lambda: len(self.events("rules.loaded")) >= count, f"rules.loaded, {count} times: {self.bench.logs()}")

    def passes(self, payload: bytes, port: int = 53) -> None:
        """A datagram goes although the secondary is silent."""
        put(self.pri, datagram(payload, port))
        assert take(self.out) == datagram(payload, port)

    def waits(self, payload: bytes, port: int = 53) -> None:
        """A datagram goes no sooner than its equal has come: one that is equal at once overtakes it."""
        put(self.pri, datagram(payload, port))
        put(self.sec, datagram(b"marker", 999))
        put(self.pri, datagram(b"marker", 999))
        assert take(self.out) == datagram(b"marker", 999)
        put(self.sec, datagram(payload, port))
        assert take(self.out) == datagram(payload, port)


def test_a_file_is_read_at_the_start_and_again_at_sighup(bench):
    file = Path(bench.path("my.rules"))
    file.write_text("pass udp guest-port 53\n")
    worker = Worker(bench, "comp0", "--rules", str(file))
    worker.loaded(1)
    worker.passes(b"one")
    worker.waits(b"two", 54)
    file.write_text("pass udp guest-port 54\n")
    worker.process.send_signal(signal.SIGHUP)
    worker.loaded(2)
    worker.passes(b"three", 54)
    worker.waits(b"four", 53)
    file.write_text("pass upd\n")
    worker.process.send_signal(signal.SIGHUP)
    until(lambda: worker.events("process.not_reloaded"), "a wrong file is refused")
    worker.passes(b"five", 54)


@pytest.mark.slow
def test_the_frame_tells_all_workers_also_those_that_join_later_and_survives_itself(bench):
    control = f"ipc://{bench.path('control')}"

    def frame():
        return bench.colo("frame", "--listen", control, "--workers", "comp0,comp1", "--log-format", "json")

    first = frame()
    workers = [Worker(bench, f"comp{n}", "--frame", control) for n in range(2)]
    until(lambda: len(ask(control, Query("status"), PATIENCE).body["processes"]) == 2, "both have said hello")
    file = Path(bench.path("my.rules"))
    file.write_text("pass udp guest-port 53\n")
    assert main(["rules", str(file), "--frame", control, "--timeout", "20"]) == 0
    for worker in workers:
        worker.loaded(1)
        worker.passes(b"one")
        worker.waits(b"two", 54)
    late = Worker(bench, "comp2", "--frame", control)
    late.loaded(1)
    late.passes(b"three")
    first.kill()
    first.wait()
    frame()
    until(lambda: ask(control, Query("rules"), PATIENCE).body["rules"] == file.read_text(), "learnt from the workers")
    workers[0].passes(b"four")


@pytest.mark.slow
def test_modes_change_live_and_no_frame_is_lost(bench):
    control = f"ipc://{bench.path('control')}"
    bench.colo("frame", "--listen", control, "--workers", "comp0", "--log-format", "json")
    worker = Worker(bench, "comp0", "--frame", control)
    until(lambda: ask(control, Query("status"), PATIENCE).body["processes"], "it has said hello")
    sent, number = [], 0
    for mode in ("bypass", "enforce", "shadow", "enforce", "bypass"):
        for _ in range(20):
            frame = datagram(b"%d" % number)
            number += 1
            sent.append(frame)
            put(worker.pri, frame)
            put(worker.sec, frame)
        assert main(["mode", mode, "--frame", control, "--timeout", "20"]) == 0
    # A frame and its equal may stand on two sides of a change, so one may overtake another: none is lost or doubled.
    assert sorted(take(worker.out) for _ in sent) == sorted(sent)
    assert main(["mode", "--frame", control, "--timeout", "20"]) == 0


@pytest.mark.parametrize(
    ("text", "says"), [("pass upd\n", "line 1"), (None, "No such file"), (b"\xff\xfe", "can't decode")]
)
def test_a_wrong_file_is_refused_before_anything_starts(tmp_path, text, says, capsys):
    file = tmp_path / "my.rules"
    if text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=says):
        read_rules(str(file))
    ports = [
        "--primary-in",
        "ipc:///run/colo/a",
        "--secondary-in",
        "ipc:///run/colo/b",
        "--outdev",
        "ipc:///run/colo/c",
    ]
    assert main(["compare", *ports, "--rules", str(file)]) == 2
    assert main(["check", "--rules", str(file)]) == 2
    assert main(["rules", str(file)]) == 2
    config = tmp_path / "colo.toml"
    config.write_text(f'[compare.comp0]\nrules = "{file}"\n')
    _, errors = check_file(str(config), {})
    assert says in errors[0]
    assert says in capsys.readouterr().err


def test_check_needs_something_to_look_at(tmp_path):
    assert main(["check"]) == 2
    good = tmp_path / "good.rules"
    good.write_text("pass any\n")
    assert main(["check", "--rules", str(good)]) == 0


def test_help_names_the_commands():
    from colo_cli.cli import colo

    text = CliRunner().invoke(colo, ["--help"]).output
    assert "rules" in text
    assert "mode" in text
