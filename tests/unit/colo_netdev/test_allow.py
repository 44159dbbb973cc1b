"""Who may have which tap: what `--allow` says, and what netdev's socket does about it."""

import contextlib
import os
import socket
import tempfile
from pathlib import Path

import pytest

from colo_netdev.allow import Allowed
from colo_netdev.config import Grant, NetdevConfig, parse_allow
from colo_netdev.hold import offer_netns
from colo_netdev.netdev import Netdev
from colo_netdev.server import Server
from colo_netdev.taps import Tap
from colo_proto.core import Way
from colo_proto.errors import ConfigError
from colo_proto.netdev import RefusedError, Request, decode_ok, encode_request
from colo_runtime.descriptors import close_all
from colo_runtime.descriptors import receive as receive_packet
from colo_runtime.reactor import Reactor
from runtime_helpers import Bench, Log, Probe
from tap_client import fetch_tap

ME = os.getuid()
TAPS = ("lan,netns=@lan", "guest")


def test_what_it_says():
    assert parse_allow("user=7,tap=lan+guest") == Grant(7, taps=("lan", "guest"))
    assert parse_allow("user=7,tap=lan,lease=on") == Grant(7, taps=("lan",), lease=True)
    assert parse_allow("user=7,netns=lan") == Grant(7, netns=("lan",))
    assert parse_allow("tap=a,user=0,netns=b+c") == Grant(0, taps=("a",), netns=("b", "c"))


@pytest.mark.parametrize(
    "text",
    [
        "", "user=7", "tap=lan", "user=,tap=lan", "user=x,tap=lan", "user=-1,tap=lan", "user=4294967295,tap=lan",
        "user=7,tap=", "user=7,tap=lan+", "user=7,tap=lan,lease=perhaps", "user=7,netns=lan,lease=on",
        "user=7,tap=lan,user=8", "user=7,tap=lan,what=1", "user=٣,tap=lan", "user=" + "9" * 26 + ",tap=lan",
    ],
)  # fmt: skip
def test_what_it_cannot_say(text):
    with pytest.raises(ConfigError, match="--allow"):
        parse_allow(text)


def test_a_tap_that_is_not_there_is_an_error():
    with pytest.raises(ConfigError, match="there is no tap 'lam'"):
        NetdevConfig("/run/x", TAPS, allow=("user=7,tap=lam",))


def refusal(user, request, *grants):
    return Allowed([parse_allow(one) for one in grants]).refusal(user, request)


def test_without_grants_everybody_may_have_everything():
    assert not refusal(1, Request("get", "lan"))
    assert not refusal(1, Request("netns", "lan"))


def test_a_user_has_what_is_named_and_nothing_else():
    grants = ("user=7,tap=lan", "user=7,tap=guest,lease=on", "user=8,netns=lan")
    assert not refusal(7, Request("get", "lan"), *grants)
    assert not refusal(7, Request("get", "lan", lease=True), *grants), "with less than is allowed"
    assert "lease=on" in refusal(7, Request("get", "guest"), *grants)
    assert not refusal(7, Request("get", "guest", lease=True), *grants)
    assert not refusal(7, Request("return", "guest"), *grants), "who returns a descriptor gets none"
    assert not refusal(8, Request("netns", "lan"), *grants)
    for user, verb, name in (
        (8, "get", "lan"), (8, "return", "lan"), (7, "netns", "lan"), (8, "netns", "guest"), (0, "get", "lan"),
        (7, "get", "nope"), (9, "get", "lan"),
    ):  # fmt: skip
        assert f"user {user} may not" in refusal(user, Request(verb, name), *grants)
    both = ("user=7,tap=lan,lease=on", "user=7,tap=lan")
    assert not refusal(7, Request("get", "lan"), *both)
    assert not refusal(7, Request("get", "lan"), *reversed(both))


class Running:
    """A netdev with a real socket; one end of a pipe stands for each tap."""

    def __init__(self, path, *allow, opened=()):
        self.log, self.opened = Log(), list(opened)
        config = NetdevConfig(str(path), TAPS, allow=allow)
        self.netdev = Netdev(config, self.open, self.adopt)
        self.netdev.open(0.0)
        self.reactor = Reactor()
        self.server = Server(self.netdev, self.reactor, self.log)

    def open(self, spec, *, offered=None):
        reader, writer = os.pipe()
        os.close(reader)
        self.opened.append(spec.name)
        return Pretended(spec, writer, "02:00:00:00:00:01")

    def adopt(self, spec, fd):
        self.opened.append(f"{spec.name} back")
        return Pretended(spec, os.dup(fd), "")

    def ask(self, what):
        """The result of `what(socket)` of a client, whose requests netdev answers meanwhile."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.connect(self.netdev.config.listen)
            self.reactor.turn(0)
            return what(ClientSocket(sock, self.reactor))


class ClientSocket:
    """The socket of a client: netdev runs once before each answer is read."""

    def __init__(self, sock, reactor):
        self.sock, self.reactor = sock, reactor
        self.sendmsg, self.fileno, self.send = sock.sendmsg, sock.fileno, sock.send

    def recvmsg(self, *arguments):
        self.reactor.turn(0)
        return self.sock.recvmsg(*arguments)


class Pretended(Tap):
    @property
    def alive(self):
        return True


@pytest.fixture
def place():
    # Not tmp_path: a Unix socket's path has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="colo-") as directory:
        yield Path(directory)


@pytest.fixture
def netdev(place):
    with contextlib.ExitStack() as stack:

        def start(*allow):
            one = Running(place / "netdev.sock", *allow)
            stack.callback(one.reactor.close)
            stack.callback(one.netdev.close)
            stack.callback(one.server.close)
            return one

        yield start


def given(netdev, tap, **request):
    def ask(sock):
        info, fd = fetch_tap(sock, tap, "m0", **request)
        os.close(fd)
        return info.tap

    return netdev.ask(ask)


def test_another_user_gets_no_descriptor(netdev):
    one = netdev(f"user={ME + 1},tap=guest")
    with pytest.raises(RefusedError, match=f"user {ME} may not have tap guest") as error:
        given(one, "guest")
    assert not error.value.retry
    assert one.netdev.counters["not_allowed"] == 1
    assert one.netdev.counters["passed"] == 0
    assert one.log.events("request.refused")[0]["user"] == ME


def test_a_user_with_a_leased_tap_gets_it_with_a_lease_only(netdev):
    one = netdev(f"user={ME},tap=guest,lease=on")
    with pytest.raises(RefusedError, match="lease=on"):
        given(one, "guest")
    assert given(one, "guest", lease=True) == "guest"


def test_everybody_is_served_where_nothing_is_said(netdev):
    one = netdev()
    assert given(one, "guest") == "guest"


def test_a_namespace_is_taken_of_those_who_may_offer_it(netdev):
    """The process that offers a namespace has the other end of its taps."""
    one = netdev(f"user={ME},tap=lan+guest", f"user={ME + 1},netns=lan")
    with pytest.raises(RefusedError, match=f"user {ME} may not offer the namespace lan"):
        one.ask(lambda sock: offer_netns(sock, "lan", "evil"))
    assert one.opened == ["guest"]
    assert not one.netdev.offers


def test_a_descriptor_is_taken_back_of_those_who_may_have_it(netdev):
    """Otherwise anybody could replace a tap that netdev waits for by one of his own."""
    one = netdev(f"user={ME + 1},tap=lan")

    def give_back(sock):
        reader, writer = os.pipe()
        socket.send_fds(sock, [encode_request(Request("return", "lan", "evil"))], [writer])
        os.close(reader)
        os.close(writer)
        data, fds = receive_packet(sock)
        close_all(fds)
        decode_ok(data)

    with pytest.raises(RefusedError, match="may not have tap lan"):
        one.ask(give_back)
    assert one.opened == ["guest"]


def test_a_leased_port_says_so(netdev, place):
    """`lease=on` of an endpoint is part of what the filter asks netdev for."""
    one = netdev(f"user={ME},tap=guest,lease=on")
    tap = f"tap://guest?netdev={place}/netdev.sock"
    bench = Bench(place)
    try:
        leased = bench.shell(Probe(out=Way.OUT), "redire0", out=tap + "&lease=on", frame=bench.ipc("control"))
        bench.until(lambda: one.reactor.turn(0) or leased.links["out"]._fd >= 0)
        greedy = bench.shell(Probe(out=Way.OUT), "redire1", out=tap)
        with pytest.raises(ConfigError, match="lease=on"):
            bench.until(lambda: one.reactor.turn(0) or greedy.links["out"]._fd >= 0)
    finally:
        bench.close()
