"""The windows of clients: lowered for both guests when hundreds of connections receive at once, and else untouched."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

import craft
from checksums import tcp_checksum_ok
from colo_mirror.config import MirrorConfig
from colo_mirror.mirror import Mirror
from colo_mirror.windows import MAX_FLOWS, Windows
from colo_proto.net.packet import dissect
from colo_proto.net.tcp import ACK, FIN, RST, SYN, segment
from colo_proto.seq import MASK
from colo_proto.share import LEAST, TICK

MIB = 1 << 20
ADDRESSES = {4: ("10.0.0.1", "10.0.0.9"), 6: ("fd00::1", "fd00::9")}


def frame(ack=0, window=502, flags=ACK, *, port=40000, seq=1, options=b"", payload=b"", version=4, **more):
    client, guest = ADDRESSES[version]
    return craft.tcp(client, guest, port, 80, seq, ack & MASK, flags, payload, window=window, options=options, **more)


def window_of(one):
    packet = dissect(one)
    return segment(one, packet.l4, packet.end).window


class Clients:
    """Clients at one mirror. `told` are the edges that the guests know, by port."""

    def __init__(self, budget=32 * MIB):
        self.windows = Windows(budget, Counter())
        self.now = 0.0

    def opens(self, port, *, shift=7, syn_window=64240, first=502, ack=1000, version=4):
        syn = frame(window=syn_window, flags=SYN, port=port, options=craft.wscale(shift), version=version)
        assert self.windows.lower(syn) is syn
        third = frame(ack, first, port=port, version=version)
        assert self.windows.lower(third) is third

    def says(self, ack, window, *, port=40000, **more):
        self.windows.share.advance(self.now)
        one = frame(ack, window, port=port, **more)
        lowered = self.windows.lower(one)
        assert tcp_checksum_ok(lowered) == tcp_checksum_ok(one)
        return window_of(lowered)

    def crowd(self, number):
        """So many other connections receive at this moment."""
        self.windows.share.advance(self.now)
        for _ in range(number):
            self.windows.share.count()


def test_the_window_of_one_download_is_not_touched():
    clients = Clients()
    clients.opens(40000)
    for step in range(1, 100):
        clients.now += TICK / 3
        one = frame(1000 + step * 100_000, 49_152)
        clients.windows.share.advance(clients.now)
        assert clients.windows.lower(one) is one


@pytest.mark.parametrize("version", [4, 6])
def test_with_hundreds_it_is_the_share(version):
    clients = Clients()
    clients.opens(40000, version=version)
    clients.crowd(511)
    # 64 KiB each, in units of 128 bytes.
    assert clients.says(101_000, 49_152, version=version) == 512
    assert clients.says(201_000, 400, version=version) == 400


def test_what_was_offered_is_not_taken_back():
    clients = Clients()
    clients.opens(40000)
    assert clients.says(2000, 8192) == 8192
    edge = 2000 + (8192 << 7)
    clients.crowd(1023)
    for ack in (10_000, 200_000, 900_000):
        field = clients.says(ack, 49_152)
        assert edge <= ack + (field << 7) < edge + 3 * 128
    # From here on the share is more than what is left of it.
    assert clients.says(1_040_000, 49_152) == (32 * MIB // 1024) >> 7


def test_a_repeated_ack_stays_one():
    clients = Clients()
    clients.opens(40000)
    clients.crowd(1023)
    first = clients.says(100_000, 49_152)
    clients.now += TICK
    assert clients.says(100_000, 49_152) == first
    assert clients.says(90_000, 49_152) == 49_152, "older than what the guests know: it says nothing about now"
    clients.now += 60.0
    assert clients.says(200_000, 49_152) == 49_152, "the others have ended"


def test_a_client_that_takes_less_is_believed():
    clients = Clients()
    clients.opens(40000)
    clients.crowd(1023)
    clients.says(100_000, 49_152)
    assert clients.says(110_000, 0) == 0
    assert clients.says(110_000, 10) == 10
    assert clients.says(110_000, 49_152) == 256 - (10_000 >> 7)


@pytest.mark.parametrize(
    ("shift", "syn_window", "first", "scaled"),
    [
        (7, 64240, 502, True),
        (8, 64240, 513, True),
        (6, 65535, 2058, True),
        (10, 29200, 29, True),
        (14, 65535, 4, True),
        (7, 64240, 64240, False),
        (8, 64240, 65535, False),
        (3, 5840, 5840, False),
        (7, 64240, 0, False),
    ],
    ids=str,
)
def test_the_first_window_shows_whether_the_guest_scales(shift, syn_window, first, scaled):
    clients = Clients()
    clients.opens(40000, shift=shift, syn_window=syn_window, first=first)
    clients.crowd(2047)
    clients.says(3_000_000, 65535)
    field = clients.says(9_000_000, 65535)
    share = 32 * MIB // 2048
    if scaled:
        assert field == max(share >> shift, 1)
    else:
        assert field == min(65535, share), "no window without a scale is taken for more than it is"


def test_a_connection_that_a_guest_opens_scales_when_the_client_says_so():
    clients = Clients()
    answer = frame(1000, 65160, SYN | ACK, options=craft.wscale(7))
    assert clients.windows.lower(answer) is answer
    clients.crowd(511)
    assert clients.says(101_000, 49_152) == 512
    plain = frame(1000, 65160, SYN | ACK, port=40001)
    assert clients.windows.lower(plain) is plain
    assert clients.says(101_000, 49_152, port=40001) == 49_152


def test_connections_from_the_middle_are_left_alone():
    clients = Clients()
    clients.crowd(2047)
    assert clients.says(100_000, 49_152) == 49_152
    assert clients.windows.flows == 0


@pytest.mark.parametrize("flags", [FIN | ACK, RST, RST | ACK])
def test_a_connection_that_ends_is_forgotten(flags):
    clients = Clients()
    clients.opens(40000)
    clients.windows.lower(frame(2000, 502, flags))
    assert clients.windows.flows == 0


def test_a_stray_syn_ends_the_lowering_and_nothing_else():
    clients = Clients()
    clients.opens(40000)
    stray = frame(window=65535, flags=SYN, options=craft.wscale(14))
    clients.windows.lower(stray)
    clients.crowd(2047)
    assert clients.says(3_000_000, 502) == 502


def test_a_repeated_syn_does_not():
    clients = Clients()
    syn = frame(window=64240, flags=SYN, options=craft.wscale(7))
    clients.windows.lower(syn)
    clients.opens(40000)
    clients.crowd(511)
    assert clients.says(101_000, 49_152) == 512


def test_the_table_is_bounded():
    clients = Clients()
    for number in range(MAX_FLOWS + 10):
        port, seq = 1 + number % 65535, number
        options, source = craft.wscale(7), f"10.{1 + number // 65535}.0.1"
        clients.windows.lower(craft.tcp(source, "10.0.0.9", port, 80, seq, 0, SYN, options=options))
    assert clients.windows.flows == MAX_FLOWS
    assert clients.windows._counters["windows_forgotten"] == 10


@given(st.lists(st.binary(max_size=120), max_size=20))
def test_any_bytes_pass(strange):
    windows = Windows(32 * MIB, Counter())
    for one in (bytes(10) + data for data in strange):
        assert windows.lower(one) == one


STEPS = st.tuples(
    st.integers(0, 3), st.integers(-200_000, 2_000_000), st.integers(0, 65535), st.integers(0, 600), st.floats(0, 0.5)
)


@given(st.lists(STEPS, max_size=60), st.integers(0, MASK))
def test_no_edge_moves_back_that_the_client_has_not_moved_back(steps, start):
    """For each connection the edge that the guests know is the client's own, or it never moves back."""
    clients = Clients()
    ports = [40000 + number for number in range(4)]
    for port in ports:
        clients.opens(port, ack=start)
    acks = dict.fromkeys(ports, 0)
    told = dict.fromkeys(ports, 502 << 7)
    for index, move, window, crowd, time in steps:
        port = ports[index]
        clients.now += time
        clients.crowd(crowd)
        ack = acks[port] + move
        field = clients.says(start + ack, window, port=port)
        edge, own = ack + (field << 7), ack + (window << 7)
        assert edge <= own
        if ack < acks[port]:
            # The guest has seen a newer one, and takes no window from this.
            assert field == window
            continue
        acks[port] = ack
        if field != window:
            assert edge >= min(told[port], own)
            assert edge - ack >= min(LEAST, window << 7) - 128 or edge >= told[port]
        told[port] = max(told[port], edge)


def test_a_mirror_lowers_the_original_and_the_copy():
    core = Mirror(MirrorConfig(max_windows_mib=1))
    ports = range(40000, 40064)
    for port in ports:
        core.receive("netdev", [frame(window=64240, flags=SYN, port=port, options=craft.wscale(7))], 0.0)
        core.receive("netdev", [frame(1000, 502, port=port)], 0.0)
    for step, ack in enumerate((500_000, 1_000_000, 8_000_000)):
        out = core.receive("netdev", [frame(ack, 49_152, port=port) for port in ports], step * TICK)
    assert [send.port for send in out] == ["next", "outdev"]
    assert out[0].frames == out[1].frames
    assert {window_of(one) for one in out[0].frames} == {(1 * MIB // 64) >> 7}
    assert core.gauges() == {"active": 64, "window_bytes": 1 * MIB // 64}
    assert core.counters["windows_lowered"] > 64


def test_a_mirror_without_a_bound_passes_every_frame_as_it_is():
    core = Mirror(MirrorConfig(max_windows_mib=0))
    batch = [frame(1000, 502), frame(window=64240, flags=SYN, options=craft.wscale(7))]
    out = core.receive("netdev", batch, 0.0)
    assert all(send.frames is batch for send in out)
    assert core.gauges() == {}
