"""What strangers can take of a process that listens: connections that say nothing, or only a greeting."""

import os
import resource
import socket
import subprocess
import sys
import time

import pytest
import zmq

from colo_proto.endpoint import parse_endpoint
from colo_runtime import doors, zmqoptions
from colo_runtime.curve import dial, load, write_pair
from runtime_helpers import PATIENCE, free_port, sink, source, step
from strangers import GREETING, KEYLESS, Flood, strangers

ALL = resource.getrlimit(resource.RLIMIT_NOFILE)[1]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(ALL < 4096, reason="needs 4,096 descriptors for the strangers"),
]


@pytest.fixture(autouse=True)
def many_descriptors():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (ALL, ALL))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture
def keys(tmp_path):
    for name in ("a", "b"):
        write_pair(str(tmp_path), name)
    return {"curve_secret": str(tmp_path / "a.key_secret"), "curve_peers": str(tmp_path / "b.key")}, {
        "curve_secret": str(tmp_path / "b.key_secret"),
        "curve_peers": str(tmp_path / "a.key"),
    }


def end_of(made):
    for one in made:
        one.close()


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def limited(bench, soft, hard, *arguments):
    """A real process with so many descriptors."""
    code = (
        f"import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard})); "
        f"sys.argv[0] = 'colo'; from colo_cli.cli import main; sys.exit(main())"
    )
    from where import PYTHONPATH

    log = (bench.directory / "log-limited").open("wb")
    child = subprocess.Popen(
        [sys.executable, "-P", "-c", code, *arguments], env={**os.environ, "PYTHONPATH": PYTHONPATH}, stderr=log
    )
    log.close()
    bench.children.append(child)
    return child


def compare(bench, soft, hard, *more):
    """One that strangers reach over TCP, and its own host's processes over ipc."""
    port = free_port()
    child = limited(
        bench, soft, hard, "compare", "--primary-in", bench.ipc("p") + "?server=on",
        "--secondary-in", f"tcp://127.0.0.1:{port}?server=on", "--outdev", bench.ipc("o") + "?server=on", *more,
    )  # fmt: skip
    for path in ("p.sock", "o.sock"):
        bench.unix(bench.path(path))
    return child, port


def gets_in(bench, endpoint, patience=PATIENCE, keys=None):
    """Seconds until a genuine peer has finished its handshake."""
    one = bench.context.socket(zmq.DEALER)
    bench.sockets.append(one)
    one.linger, one.reconnect_ivl, one.reconnect_ivl_max, one.immediate = 0, 20, 1000, True
    one.handshake_ivl, one.connect_timeout = doors.HANDSHAKE_MS, zmqoptions.CONNECT_MS
    if keys is not None:
        ours = load(keys["curve_secret"], keys["curve_peers"])
        dial(one, ours, next(iter(ours.peers)))
    begin = time.monotonic()
    one.connect(endpoint)
    while not one.poll(5, zmq.POLLOUT):
        for shell in bench.shells:
            step(shell, 0.002)
        assert time.monotonic() < begin + patience, "it never got in"
    return time.monotonic() - begin


@pytest.mark.parametrize(("soft", "hard"), [(1024, 4096), (1024, 1024)])
@pytest.mark.parametrize("say", [KEYLESS, b""], ids=["greeting", "silent"])
def test_1500_connections_do_not_end_a_process(bench, soft, hard, say):
    child, port = compare(bench, soft, hard)
    before = descriptors(child.pid)
    made = strangers(("127.0.0.1", port), 1500, say)
    try:
        for _ in range(40):
            bench.unix(bench.path("p.sock"))
        assert gets_in(bench, bench.ipc("o")) < 10
        assert gets_in(bench, f"tcp://127.0.0.1:{port}") < 10, "the one who is genuine, too"
        end = time.monotonic() + PATIENCE
        while descriptors(child.pid) > before + doors.MAX_PENDING + 60:
            assert time.monotonic() < end, f"{descriptors(child.pid)} descriptors"
            time.sleep(0.02)
        assert child.poll() is None, bench.logs()
    finally:
        end_of(made)


def test_with_too_few_descriptors_the_port_is_not_opened(bench):
    child = limited(
        bench, 256, 1000, "compare", "--primary-in", bench.ipc("p") + "?server=on",
        "--secondary-in", f"tcp://127.0.0.1:{free_port()}?server=on", "--outdev", bench.ipc("o") + "?server=on",
    )  # fmt: skip
    assert child.wait(PATIENCE) == 1
    assert "needs 1024 descriptors, there are 1000" in bench.logs()


def test_a_process_of_its_own_host_cannot_end_it_either(bench):
    child, _ = compare(bench, 1024, 1024)
    made = strangers(bench.path("p.sock"), 1500)
    try:
        gets_in(bench, bench.ipc("o"))
        gets_in(bench, bench.ipc("p"))
        assert child.poll() is None, bench.logs()
    finally:
        end_of(made)


def wire(bench, **options):
    port = free_port()
    shell = bench.shell(sink(), "b", in_=f"tcp://127.0.0.1:{port}?server=on", alone=True, **options)
    return shell, port


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.9"], ids=["same address", "another address"])
def test_a_genuine_peer_gets_in_while_the_flood_goes_on(bench, keys, address):
    here, there = keys
    shell, port = wire(bench, **here)
    link = shell.links["in"]
    with Flood(port, source=address):
        bench.until(lambda: link.counters["turned_away"] > 100)
        took = [gets_in(bench, f"tcp://127.0.0.1:{port}", keys=there) for _ in range(3)]
    assert max(took) < 10
    assert len(link._wire._monitor._pending) <= doors.MAX_PENDING
    assert shell.log.events("peer.refused")


def test_who_is_in_stays_in(bench, keys):
    """libzmq does not say whose handshake succeeded: it must not be taken for a stranger's, and ended in his place."""
    here, there = keys
    shell, port = wire(bench, **here)
    link = shell.links["in"]
    first = strangers(("127.0.0.1", port), 20, GREETING)
    bench.until(lambda: len(link._wire._monitor._pending) == 20)
    sender = bench.shell(source(), "a", out=f"tcp://127.0.0.1:{port}", alone=True, **there)
    late = []
    sender.links["out"]._wire._on_change = late.append
    while not sender.links["out"]._wire.peers:
        first += strangers(("127.0.0.1", port), 1, GREETING)
        bench.turn(0.005)
    first += strangers(("127.0.0.1", port), 3 * doors.MAX_PENDING, GREETING)
    bench.until(lambda: link.counters["turned_away"] > doors.MAX_PENDING)
    end_of(first)
    bench.until(lambda: len(link._wire._monitor._pending) == 0)
    assert sender.links["out"]._wire.peers == 1
    assert "down" not in late
    assert link._wire.peers == 1


def test_while_the_loop_stands_still_no_more_than_some_hundred_are_let_in(bench):
    """The events of its connections wait in a pipe, and libzmq's thread waits for room in it."""
    before = descriptors("self")
    shell, port = wire(bench)
    with Flood(port, KEYLESS, hold=3000):
        end = time.monotonic() + 2
        while time.monotonic() < end:
            assert descriptors("self") < before + doors.MAX_BEHIND + 20
            time.sleep(0.01)
        bench.until(lambda: shell.links["in"].counters["turned_away"] > 1000)
        bench.drop(shell)


def test_a_port_is_closed_in_the_middle_of_a_flood(bench):
    """libzmq's thread holds a lock while it waits for room in the pipe of events; closing takes that lock."""
    port = free_port()
    with Flood(port, KEYLESS, hold=3000, wait=False):
        for _ in range(20):
            shell = bench.shell(sink(), "b", in_=f"tcp://127.0.0.1:{port}?server=on", alone=True)
            time.sleep(0.02)
            bench.turn(0.02)
            bench.drop(shell)


@pytest.mark.parametrize("say", [KEYLESS, b""], ids=["greeting", "silent"])
@pytest.mark.parametrize("scheme", ["tcp", "ipc"])
def test_a_handshake_has_its_time(bench, monkeypatch, say, scheme):
    monkeypatch.setattr(zmqoptions, "HANDSHAKE_MS", 100)
    endpoint = bench.ipc("in") if scheme == "ipc" else f"tcp://127.0.0.1:{free_port()}"
    shell = bench.shell(sink(), "b", in_=endpoint + "?server=on")
    where = parse_endpoint(endpoint)
    made = strangers(where.address if scheme == "ipc" else where.host_port(), 5, say)
    monitor = shell.links["in"]._wire._monitor
    bench.until(lambda: len(monitor._pending) == 5)
    bench.until(lambda: len(monitor._pending) == 0)
    assert shell.links["in"].counters["wire_errors.handshake"] == 5
    end_of(made)


def test_the_limit_is_raised(tmp_path):
    first = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, "
    code = (
        "from colo_runtime.doors import raise_limit; print(raise_limit(), resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    for soft, hard, wanted in ((256, 2000, 2000), (300, 300, 300), (1024, ALL, min(ALL, doors.WANTED))):
        said = subprocess.run(
            [sys.executable, "-c", f"{first}({soft}, {hard})); {code}"],
            capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        ).stdout  # fmt: skip
        assert said == f"{wanted} ({wanted}, {hard})\n"


class TestCallers:
    def test_the_oldest_of_whoever_has_most_is_turned_away(self):
        with socket.create_server(("0.0.0.0", 0)) as server:
            made, taken = [], []
            for last in (2, 3, 3, 2, 3, 4):
                one = socket.create_connection(server.getsockname(), source_address=(f"127.0.0.{last}", 0))
                made.append(one)
                taken.append(server.accept()[0])
            callers = doors.Callers()
            for one in taken:
                callers.add(one.fileno())
            found = [callers.surplus() for _ in range(3)]
            assert [caller.who for caller in found] == ["127.0.0.3", "127.0.0.2", "127.0.0.3"]
            assert [caller.fd for caller in found] == [taken[1].fileno(), taken[0].fileno(), taken[2].fileno()]
            assert len(callers) == 3
            for one in made + taken:
                one.close()

    def test_who_has_said_most_has_arrived(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            made = [socket.create_connection(server.getsockname()) for _ in range(4)]
            taken = [server.accept()[0] for _ in range(4)]
            callers = doors.Callers()
            for one in taken:
                callers.add(one.fileno())
            for one, size in zip(made, (64, 500, 64, 64), strict=True):
                one.sendall(bytes(size))
            for one, size in zip(taken, (64, 500, 64, 64), strict=True):
                one.recv(size, socket.MSG_WAITALL)
            assert callers.arrived() == taken[1].fileno()
            assert callers.arrived() == taken[3].fileno(), "of equal ones the youngest"
            for one in made + taken:
                one.close()

    def test_a_number_that_is_anothers_by_now_is_left_alone(self):
        ours, theirs = socket.socketpair()
        inode = os.fstat(ours.fileno()).st_ino
        doors.hang_up(ours.fileno(), inode + 1)
        theirs.send(b"x")
        assert ours.recv(1) == b"x"
        doors.hang_up(ours.fileno(), inode)
        assert theirs.recv(1) == b""
        doors.hang_up(999_999)
        ours.close()
        theirs.close()

    def test_of_ipv6_the_network_counts(self):
        with (
            socket.create_server(("::1", 0), family=socket.AF_INET6) as server,
            socket.create_connection(server.getsockname()[:2]),
        ):
            taken = server.accept()[0]
            callers = doors.Callers()
            callers.add(taken.fileno())
            assert callers.surplus().who == "::"
            taken.close()


def test_the_last_descriptors_are_not_for_others(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _what: (1024, 4096))
    assert not doors.crowded(959)
    assert doors.crowded(960)
    monkeypatch.setattr(resource, "getrlimit", lambda _what: (40, 40))
    assert not doors.crowded(29)
    assert doors.crowded(30)
    monkeypatch.setattr(resource, "getrlimit", lambda _what: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert not doors.crowded(50_000)
