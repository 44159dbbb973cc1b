"""CURVE on real sockets: who is let in, who is not, and what happens when the list changes."""

import os
import shutil
import signal
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from colo_cli.cli import main
from colo_frame.config import FrameConfig
from colo_frame.frame import Frame
from colo_frame.shell import FrameShell
from colo_proto.core import Tell
from colo_proto.endpoint import parse_endpoint
from colo_proto.errors import ConfigError
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


# -- start ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address", ["tcp://0.0.0.0:9003?server=on", "tcp://192.0.2.1:9003", "tcp://[::]:9003?server=on"]
)
def test_a_link_between_hosts_needs_keys(bench, address):
    with pytest.raises(ConfigError, match="--insecure"):
        bench.shell(sink(), "b", in_=address)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:{}?server=on", "tcp://localhost:{}", "tcp://[::1]:{}"])
def test_a_link_to_oneself_does_not(bench, address):
    bench.shell(sink(), "b", in_=address.format(free_port()))


def test_insecure_has_to_be_said(bench):
    bench.shell(sink(), "b", in_=f"tcp://0.0.0.0:{free_port()}?server=on", insecure=True)


def test_sockets_of_a_host_are_for_their_owner_and_group_alone(bench):
    before = os.umask(0)
    try:
        bench.shell(sink(), "b", in_=bench.ipc("mine") + "?server=on")
        assert os.umask(0) == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(bench.path("mine.sock")).st_mode) == 0o660


# -- files ------------------------------------------------------------------------------------------


def test_a_pair_of_files(ring, tmp_path):
    public_file, secret_file, public = curve.write_pair(str(tmp_path / "new" / "folder"), "p")
    assert stat.S_IMODE(secret_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(public_file.stat().st_mode) == 0o644
    assert "secret" not in public_file.read_text()
    keys = curve.load(str(secret_file), str(public_file))
    assert keys.public.decode() == public
    assert dict(keys.peers) == {public.encode(): "p"}
    with pytest.raises(ConfigError, match="not overwritten"):
        curve.write_pair(str(public_file.parent), "p")


def test_files_are_those_of_zmq_auth(tmp_path):
    certs = pytest.importorskip("zmq.auth.certs")
    public_file, secret_file = certs.create_certificates(tmp_path, "theirs")
    theirs = curve.load(secret_file, public_file)
    assert certs.load_certificate(secret_file) == (theirs.public, theirs.secret)
    _, ours, public = curve.write_pair(str(tmp_path), "ours")
    assert certs.load_certificate(ours)[0] == public.encode()


def test_a_list_of_peers_may_be_one_file(tmp_path):
    keys = [curve.write_pair(str(tmp_path), name)[2].encode() for name in "abc"]
    (tmp_path / "peers").write_text("".join((tmp_path / f"{name}.key").read_text() for name in "abc"))
    assert set(curve.load(str(tmp_path / "a.key_secret"), str(tmp_path / "peers")).peers) == set(keys)


@pytest.mark.parametrize(
    ("secret", "peers", "named"),
    [
        ("missing", "p.key", "missing: No such file"),
        ("p.key", "p.key", "no line secret-key"),
        ("p.key_secret", "missing", "missing: No such file"),
        ("p.key_secret", "", "both or neither"),
        ("p.key_secret", "junk", "not text"),
        ("p.key_secret", "short", "40 characters"),
        ("p.key_secret", "empty", "no line public-key"),
        ("mixed", "p.key", "does not belong"),
    ],
)
def test_what_is_wrong_with_files_is_said(tmp_path, secret, peers, named):
    curve.write_pair(str(tmp_path), "p")
    curve.write_pair(str(tmp_path), "q")
    (tmp_path / "junk").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "short").write_text('public-key = "abc"\n')
    (tmp_path / "empty").write_text("curve\n")
    mine = (tmp_path / "p.key_secret").read_text().splitlines()[-1]
    (tmp_path / "mixed").write_text((tmp_path / "q.key").read_text() + mine + "\n")
    with pytest.raises(ConfigError, match=named):
        curve.load(*(str(tmp_path / name) if name else "" for name in (secret, peers)))


# -- the command line -------------------------------------------------------------------------------


def colo(capsys, *arguments):
    status = main(list(arguments))
    out, err = capsys.readouterr()
    return status, out, err


def test_keygen(capsys, tmp_path):
    status, out, err = colo(capsys, "keygen", "--out", str(tmp_path), "--name", "primary")
    assert status == 0
    assert f'public-key = "{out.strip()}"' in (tmp_path / "primary.key").read_text()
    assert "--curve-secret" in err
    assert out.strip() not in err
    status, _, err = colo(capsys, "keygen", "--out", str(tmp_path), "--name", "primary")
    assert (status, err.count("\n")) == (2, 1)
    assert colo(capsys, "keygen", "--out", str(tmp_path), "--name", "../x")[0] == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("compare", "--primary-in", "ipc:///a", "--outdev", "ipc:///b", "--secondary-in", "tcp://192.0.2.1:9004"),
        ("mirror", "--netdev", "ipc:///a", "--next", "ipc:///b", "--outdev", "tcp://0.0.0.0:9003?server=on"),
        ("frame", "--listen", "ipc:///a", "--peer", "tcp://0.0.0.0:9005?server=on"),
        ("mirror", "--netdev", "ipc:///a", "--next", "ipc:///b", "--outdev", "ipc:///c", "--frame", "tcp://10.0.0.1:1"),
    ],
)
def test_no_start_between_hosts_without_keys(capsys, arguments):
    status, _, err = colo(capsys, *arguments)
    assert (status, err.count("\n")) == (2, 1)
    assert "tcp://" in err
    assert "--insecure" in err


def test_check_looks_at_keys(capsys, tmp_path, monkeypatch):
    curve.write_pair(str(tmp_path), "p")
    file = tmp_path / "colo.toml"
    text = '[mirror.m0]\nnetdev = "ipc:///a"\nnext = "ipc:///b"\noutdev = "tcp://0.0.0.0:9003?server=on"\n'

    def check(more):
        file.write_text(text + more)
        return colo(capsys, "check", "--config", str(file))

    status, _, err = check("")
    assert status == 2
    assert "--insecure" in err
    assert check("insecure = true\n")[0] == 0
    keys = f'curve_secret = "{tmp_path}/p.key_secret"\ncurve_peers = "{tmp_path}/{{}}"\n'
    status, out, _ = check(keys.format("p.key"))
    assert status == 0
    assert "p.key_secret" in out
    status, _, err = check(keys.format("nobody.key"))
    assert status == 2
    assert "nobody.key: No such file" in err
    monkeypatch.setenv("COLO_CURVE_SECRET", f"{tmp_path}/p.key")
    status, _, err = check(keys.format("p.key"))
    assert status == 2
    assert "no line secret-key" in err


def test_insecure_alone_says_on(bench):
    port = free_port()
    bench.colo(
        "redirector", "--insecure", "--id", "r", "--netdev", f"chardev+unix://{bench.path('c')}?server=on",
        "--outdev", f"tcp://0.0.0.0:{port}?server=on",
    )  # fmt: skip
    bench.unix(bench.path("c"))


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


def test_colo_status_uses_the_keys_of_the_environment(bench, ring, capsys, monkeypatch):
    address = f"tcp://127.0.0.1:{free_port()}"
    bench.colo(
        "frame", "--id", "frame-p", "--listen", address + "?server=on",
        "--curve-secret", ring.secret("p"), "--curve-peers", ring.peers("p", "s"),
    )  # fmt: skip
    monkeypatch.setenv("COLO_CURVE_SECRET", ring.secret("s"))
    monkeypatch.setenv("COLO_CURVE_PEERS", ring.peers("s", "p"))
    status, out, err = colo(capsys, "status", "--frame", address, "--json", "--timeout", "20")
    assert status == 0, err + bench.logs()
    assert '"frame-p"' in out
    monkeypatch.setenv("COLO_CURVE_SECRET", ring.secret("x"))
    assert colo(capsys, "status", "--frame", address, "--timeout", "1")[0] == 1
