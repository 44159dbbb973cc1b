"""CURVE on real sockets: who is let in, who is not, and what happens when the list changes."""

import shutil
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from colo_cli.cli import main
from colo_frame.config import FrameConfig
from colo_frame.frame import Frame
from colo_frame.shell import FrameShell
from colo_proto.core import Tell
from colo_proto.endpoint import parse_endpoint
from colo_proto.messages import CheckpointWanted
from colo_runtime import curve, zmqsocket
from colo_runtime.options import CommonConfig
from runtime_helpers import Log, frames, free_port, send, sink, source


@pytest.fixture(autouse=True)
def _hurry(monkeypatch):
    monkeypatch.setattr(zmqsocket, "REDIAL", 0.02)


class Ring:
    """Key pairs by name, and lists of peers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def secret(self, name: str) -> str:
        file = self.folder / f"{name}.key_secret"
        if not file.exists():
            curve.write_pair(str(self.folder), name)
        return str(file)

    def peers(self, owner: str, *names: str) -> str:
        """The list of `owner`, made anew."""
        where = self.folder / f"peers-{owner}"
        shutil.rmtree(where, ignore_errors=True)
        where.mkdir()
        for name in names:
            self.secret(name)
            shutil.copy(self.folder / f"{name}.key", where)
        return str(where)

    def options(self, name: str, *peers: str) -> dict[str, Any]:
        return {"curve_secret": self.secret(name), "curve_peers": self.peers(name, *peers)}


@pytest.fixture
def ring(tmp_path):
    return Ring(tmp_path)


class Pair:
    """A bound end `p` and a connecting end `s` of one kind of link; `talk` makes both say what they can."""

    def __init__(self, bench, kind: str, p: dict[str, Any], s: dict[str, Any]) -> None:
        self.bench, self.kind = bench, kind
        self.address = f"tcp://127.0.0.1:{free_port()}"
        self.into = sink()
        self.sent = 0
        self.p = self.make(p, server=True)
        self.s = self.make(s, server=False)

    def make(self, keys: dict[str, Any], *, server: bool) -> Any:
        address = self.address + ("?server=on" if server else "")
        if self.kind == "peer":
            return self.frame(keys, address, server=server)
        if self.kind == "control":
            return self.control(keys, address, server=server)
        if server == (self.kind == "plain in"):
            return self.bench.shell(self.into, "comp0", in_=self.flavoured(address), alone=True, **keys)
        return self.bench.shell(source(), "m0", out=self.flavoured(address, out=True), alone=True, **keys)

    def flavoured(self, address: str, *, out: bool = False) -> str:
        word = "reliable=on" if self.kind == "reliable" else "split=on" if self.kind == "split" and out else ""
        return address + (("&" if "?" in address else "?") + word if word else "")

    def frame(self, keys: dict[str, Any], address: str, *, server: bool) -> Any:
        side = "primary" if server else "secondary"
        links = {"listen": parse_endpoint(self.bench.ipc(side)), "peer": parse_endpoint(address)}
        common = CommonConfig(id=f"frame-{side[0]}", **keys)
        core = Frame(FrameConfig(side=side, peer=address, listen=str(links["listen"]), heartbeat_interval=50))
        return self.bench.add(FrameShell(core, links, common, Log()))

    def control(self, keys: dict[str, Any], address: str, *, server: bool) -> Any:
        if not server:
            return self.bench.shell(source(), "m0", out="inproc://x?server=on", frame=address, alone=True, **keys)
        links = {"listen": parse_endpoint(address)}
        core = Frame(FrameConfig(side="primary", listen=address))
        return self.bench.add(FrameShell(core, links, CommonConfig(id="frame-p", **keys), Log()))

    def talk(self) -> None:
        if self.kind in ("peer", "control"):
            if self.kind == "control":
                self.s._do([Tell(CheckpointWanted("request"))])
            return
        sender = self.s if self.kind == "plain in" else self.p
        send(sender, frames(self.sent, 1), "comp0" if self.kind == "split" else None)
        self.sent += 1

    def through(self) -> int:
        """How much has come through, either way."""
        if self.kind in ("peer", "control"):
            return int(self.p.counters["control.received"]) + (
                int(self.s.counters["control.received"]) if self.kind == "peer" else int(self.s.control.welcomed)
            )
        return len(self.into.got["in"])

    def refused(self, end: Any, reason: str) -> int:
        counters = end.snapshot().counters
        return sum(n for name, n in counters.items() if name.endswith(f"curve_refused.{reason}"))

    def until(self, condition) -> None:
        def once():
            self.talk()
            return condition()

        self.bench.until(once)

    def quiet(self) -> None:
        """Show that nothing comes through while both try again, several times."""
        seconds = 7 * zmqsocket.REDIAL
        before = self.through()
        for _ in range(10):
            self.talk()
            self.bench.turn(seconds / 10)
        assert self.through() == before


KINDS = ["plain", "plain in", "reliable", "split", "peer", "control"]


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def lines(end, reason):
    return [line for line in end.log.events("peer.refused") if line["reason"] == reason]


def test_the_right_keys_work(bench, ring, kind):
    pair = Pair(bench, kind, ring.options("p", "s"), ring.options("s", "p"))
    pair.until(lambda: pair.through() >= 5)
    assert not pair.p.log.events("peer.refused") + pair.s.log.events("peer.refused")


def test_a_key_that_is_not_listed(bench, ring, kind):
    pair = Pair(bench, kind, ring.options("p", "s"), ring.options("x", "p"))
    pair.until(lambda: pair.refused(pair.p, "unknown_key") >= 3 and pair.refused(pair.s, "our_key_unknown") >= 3)
    pair.quiet()
    assert pair.through() == 0
    (line,) = lines(pair.p, "unknown_key")
    assert line["address"] == "127.0.0.1"
    assert line["key"] in (ring.folder / "x.key").read_text()
    assert len(lines(pair.s, "our_key_unknown")) == 1


def test_a_peer_without_keys(bench, ring, kind):
    pair = Pair(bench, kind, ring.options("p", "s"), {})
    pair.until(lambda: pair.refused(pair.p, "plaintext") >= 3)
    pair.quiet()
    assert pair.through() == 0
    assert len(lines(pair.p, "plaintext")) == 1
    assert len(pair.s.log.events("message.refused")) == 1


def test_a_bound_end_without_keys_gets_nothing_from_one_that_has_some(bench, ring, kind):
    pair = Pair(bench, kind, {}, ring.options("s", "p"))
    pair.until(lambda: pair.refused(pair.s, "plaintext") >= 3)
    pair.quiet()
    assert pair.through() == 0
    assert len(lines(pair.s, "plaintext")) == 1


def test_the_wrong_server_key(bench, ring, kind):
    pair = Pair(bench, kind, ring.options("p", "s"), ring.options("s", "x"))
    pair.until(lambda: pair.refused(pair.p, "wrong_server_key") >= 3 and pair.refused(pair.s, "no_handshake") >= 3)
    pair.quiet()
    assert pair.through() == 0
    assert len(lines(pair.p, "wrong_server_key")) == 1
    assert len(lines(pair.s, "no_handshake")) == 1


def test_a_key_that_is_taken_from_the_list_cuts_its_connections(bench, ring, kind):
    pair = Pair(bench, kind, ring.options("p", "s"), ring.options("s", "p"))
    pair.until(lambda: pair.through() >= 5)
    ring.peers("p", "x")
    pair.p.reload()
    # What had left before the reload may still be on its way.
    bench.turn(0.1)
    before = pair.through()
    pair.until(lambda: pair.refused(pair.p, "unknown_key") >= 2)
    pair.quiet()
    assert pair.through() == before
    assert len(lines(pair.p, "unknown_key")) == 1
    ring.peers("p", "x", "s")
    pair.p.reload()
    pair.until(lambda: pair.through() >= before + 5)


def test_a_key_that_the_connecting_end_does_not_trust_any_more(bench, ring, kind):
    pair = Pair(bench, kind, ring.options("p", "s"), ring.options("s", "p"))
    pair.until(lambda: pair.through() >= 5)
    ring.peers("s")
    pair.s.reload()
    bench.turn(0.1)
    pair.quiet()
    ring.peers("s", "p")
    pair.s.reload()
    before = pair.through()
    pair.until(lambda: pair.through() >= before + 5)


def test_others_go_on_after_a_key_was_taken_from_the_list(bench, ring):
    into = sink()
    address = f"tcp://127.0.0.1:{free_port()}"
    b = bench.shell(into, "b", in_=address + "?server=on", alone=True, **ring.options("p", "s", "x"))
    good = bench.shell(source(), "good", out=address, alone=True, **ring.options("s", "p"))
    bad = bench.shell(source(), "bad", out=address, alone=True, **ring.options("x", "p"))

    def both():
        send(good, frames(1, 1))
        send(bad, frames(2, 1))
        return len(set(into.got["in"])) == 2

    bench.until(both)
    ring.peers("p", "s")
    b.reload()
    bench.turn(0.1)
    into.got["in"].clear()

    def again():
        both()
        return len(into.got["in"]) > 5 and b.snapshot().counters.get("link.in.curve_refused.unknown_key")

    bench.until(again)
    assert set(into.got["in"]) == set(frames(1, 1))


def test_a_reliable_link_loses_nothing_over_a_reload(bench, ring):
    pair = Pair(bench, "reliable", ring.options("p", "s", "x"), ring.options("s", "p"))
    pair.until(lambda: pair.through() >= 5)
    ring.peers("p", "s")
    pair.p.reload()
    for _ in range(200):
        pair.talk()
    bench.until(lambda: pair.through() == pair.sent)
    assert pair.into.got["in"] == frames(0, pair.sent)


def test_a_connecting_end_tries_every_listed_key(bench, ring):
    pair = Pair(bench, "plain", ring.options("p", "s"), ring.options("s", "a", "b", "p"))
    pair.until(lambda: pair.through() >= 5)


def test_our_own_key_can_be_changed(bench, ring):
    pair = Pair(bench, "plain", ring.options("p", "s"), ring.options("s", "p", "x"))
    pair.until(lambda: pair.through() >= 5)
    ring.secret("x")
    shutil.copy(ring.folder / "x.key_secret", ring.folder / "p.key_secret")
    pair.p.reload()
    before = pair.through()
    pair.until(lambda: pair.through() >= before + 5)


def test_a_reload_of_broken_files_changes_nothing(bench, ring):
    pair = Pair(bench, "plain", ring.options("p", "s"), ring.options("s", "p"))
    pair.until(lambda: pair.through() >= 5)
    Path(ring.peers("p", "s"), "s.key").write_text('curve\n    public-key = "short"\n')
    pair.p.reload()
    (line,) = pair.p.log.events("keys.refused")
    assert "s.key" in line["error"]
    before = pair.through()
    pair.until(lambda: pair.through() >= before + 5)


def test_bytes_that_are_no_handshake_are_counted_and_cost_nobody_his_connection(bench, ring):
    pair = Pair(bench, "reliable", ring.options("p", "s"), ring.options("s", "p"))
    pair.until(lambda: pair.through() >= 5)
    for junk in (b"GET / HTTP/1.1\r\n\r\n" * 20, b"\xff" + bytes(8) + b"\x7f" + bytes(200), b""):
        with socket.create_connection(("127.0.0.1", parse_endpoint(pair.address).host_port()[1])) as raw:
            raw.sendall(junk)
            bench.turn(0.05)
    pair.until(lambda: sum(pair.refused(pair.p, why) for why in ("no_handshake", "protocol", "plaintext")) >= 3)
    assert pair.p.snapshot().gauges["link.out.peers"] == 1
    assert pair.p.snapshot().gauges["link.out.attached"] == 1
    before = pair.through()
    pair.until(lambda: pair.through() >= before + 5)


def test_an_end_that_met_a_stranger_tries_again(bench):
    """After a handshake that fails libzmq never connects again by itself."""
    port = free_port()
    into = sink()
    a = bench.shell(into, "a", in_=f"tcp://127.0.0.1:{port}")
    with socket.create_server(("127.0.0.1", port)) as stranger:
        stranger.setblocking(False)
        met: list[socket.socket] = []

        def accepted():
            try:
                met.append(stranger.accept()[0])
            except BlockingIOError:
                return False
            met[-1].sendall(b"\xff" + bytes(8) + b"\x7f" + b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10)
            return True

        bench.until(accepted)
        bench.until(lambda: a.snapshot().counters.get("link.in.wire_errors.handshake"))
        met[0].close()
    b = bench.shell(source(), "b", out=f"tcp://127.0.0.1:{port}?server=on")

    def arrived():
        send(b, frames(0, 1))
        return into.got["in"]

    bench.until(arrived)


# -- real processes --------------------------------------------------------------------------------


def test_sighup_reads_the_list_again(bench, ring):
    """A real process, and a real signal."""
    address = f"tcp://127.0.0.1:{free_port()}"
    child = bench.colo(
        "redirector", "--id", "r", "--netdev", f"chardev+unix://{bench.path('c')}?server=on",
        "--indev", address + "?server=on", "--curve-secret", ring.secret("p"), "--curve-peers", ring.peers("p", "s"),
    )  # fmt: skip
    into = bench.unix(bench.path("c"))
    into.setblocking(False)
    one = bench.shell(source(), "one", out=address, alone=True, **ring.options("s", "p"))

    def arrived():
        send(one, frames(0, 1))
        try:
            return into.recv(1 << 20)
        except BlockingIOError:
            return b""

    bench.until(arrived)
    ring.peers("p")
    child.send_signal(signal.SIGHUP)
    bench.until(lambda: one.snapshot().counters.get("link.out.curve_refused.our_key_unknown", 0) >= 2)
    assert child.poll() is None
    while arrived():
        pass
    bench.turn(0.2)
    assert not arrived()
    assert '"keys.loaded"' in bench.logs()


def status_of(capsys, address, *options):
    status = main(["status", "--frame", address, *options])
    out, err = capsys.readouterr()
    return status, out, err


def test_colo_status_uses_the_keys_of_the_environment(bench, ring, capsys, monkeypatch):
    address = f"tcp://127.0.0.1:{free_port()}"
    bench.colo(
        "frame", "--id", "frame-p", "--listen", address + "?server=on",
        "--curve-secret", ring.secret("p"), "--curve-peers", ring.peers("p", "s"),
    )  # fmt: skip
    monkeypatch.setenv("COLO_CURVE_SECRET", ring.secret("s"))
    monkeypatch.setenv("COLO_CURVE_PEERS", ring.peers("s", "p"))
    status, out, err = status_of(capsys, address, "--json", "--timeout", "20")
    assert status == 4, err + bench.logs()
    assert '"frame-p"' in out
    monkeypatch.setenv("COLO_CURVE_SECRET", ring.secret("x"))
    assert status_of(capsys, address, "--timeout", "0.4")[0] == 1
