"""Sharing out by flow: both directions, all fragments and the errors of a flow to one worker, in order."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import craft
from colo_proto import shard
from colo_proto.messages import WorkerTable
from colo_proto.net import packet as p
from colo_proto.net.flow import SLOTS, slot
from colo_proto.shard import Splitter, inner_key, slot_of

WORKERS = [f"comp{n}" for n in range(4)]
PAIRS = {4: ("10.0.0.1", "10.0.0.2"), 6: ("fd00::1", "fd00::2")}


def table(version=1, workers=WORKERS, slots=None):
    return WorkerTable(version, list(workers), [n % len(workers) for n in range(SLOTS)] if slots is None else slots)


def splitter(**options):
    one = Splitter()
    assert one.table(table(**options))
    return one


def where(one, *frames):
    """The worker of each frame."""
    out = []
    for frame in frames:
        ((worker, share),) = one.split([frame]).items()
        assert share == [frame]
        out.append(worker)
    return out


class TestTable:
    def test_nobody_without_one(self):
        one = Splitter()
        assert one.split([craft.udp(*PAIRS[4], 1, 2)]) == {}
        assert (one.version, one.workers) == (-1, [])

    @pytest.mark.parametrize(
        "bad",
        [
            table(version=1), table(version=0), table(version=5, slots=[]), table(version=5, slots=[0] * (SLOTS - 1)),
            table(version=5, workers=["a"], slots=[1] * SLOTS), table(version=5, workers=["a"], slots=[-1] * SLOTS),
            WorkerTable(5, [], [0] * SLOTS),
        ],
    )  # fmt: skip
    def test_older_or_broken_ones_are_refused(self, bad):
        one = splitter()
        assert not one.table(bad)
        assert (one.version, one.workers) == (1, WORKERS)

    def test_a_newer_one_is_in_force_at_once(self):
        one = splitter()
        frames = [craft.udp(*PAIRS[4], 1, port) for port in range(50)]
        assert len(set(where(one, *frames))) > 1
        assert one.table(table(version=7, workers=["only"]))
        assert set(where(one, *frames)) == {"only"}


class TestFlows:
    @pytest.mark.parametrize("version", [4, 6])
    @pytest.mark.parametrize("tags", [(), (5,), (5, 6)])
    def test_both_directions_go_to_one_worker(self, version, tags):
        one = splitter()
        src, dst = PAIRS[version]
        for port in range(100):
            there = craft.tcp(src, dst, 80, port, 1, 2, 16, tags=tags)
            back = craft.tcp(dst, src, port, 80, 2, 1, 16, b"data", tags=tags)
            assert len(set(where(one, there, back))) == 1

    @pytest.mark.slow
    @given(st.data())
    @settings(deadline=None, max_examples=200)
    def test_the_fast_path_finds_what_dissect_finds(self, data):
        version = data.draw(st.sampled_from([4, 6]))
        address = st.ip_addresses(v=version).map(str)
        src, dst = data.draw(address), data.draw(address)
        sport, dport = data.draw(st.integers(0, 65535)), data.draw(st.integers(0, 65535))
        tags = data.draw(st.sampled_from([(), (), (7,)]))
        shape = data.draw(st.sampled_from(["tcp", "udp", "sctp", "icmp", "options"]))
        if shape == "tcp":
            frame = craft.tcp(src, dst, sport, dport, 1, 2, 16, b"x", tags=tags)
        elif shape == "udp":
            frame = craft.udp(src, dst, sport, dport, b"x", tags=tags)
        elif shape == "sctp":
            frame = craft.ip(src, dst, p.PROTO_SCTP, sport.to_bytes(2, "big") + dport.to_bytes(2, "big") + bytes(8))
        elif shape == "icmp":
            frame = craft.icmp_echo(src, dst)
        else:
            frame = craft.udp(src, dst, sport, dport, options=b"\1" * (4 if version == 4 else 0), tags=tags)
        if data.draw(st.booleans()) and not tags:
            # Whatever stands for the version: what is no IP has no flow.
            frame = frame[:24] + bytes([data.draw(st.integers(0, 15)) << 4 | frame[24] & 15]) + frame[25:]
        expected = WORKERS[slot_of(p.dissect(frame).key) % len(WORKERS)]
        one = splitter()
        for buffer in (bytes, bytearray, memoryview):
            assert where(one, buffer(frame)) == [expected]

    def test_order_within_a_worker_is_kept(self):
        one = splitter()
        frames = [craft.udp(*PAIRS[4], 1, n % 10, n.to_bytes(2, "big")) for n in range(200)]
        shares = one.split(frames)
        assert sorted(f for share in shares.values() for f in share) == sorted(frames)
        for share in shares.values():
            assert share == sorted(share, key=frames.index)

    def test_a_flood_of_flows_costs_a_bounded_cache(self, monkeypatch):
        monkeypatch.setattr(shard, "CACHE", 100)
        one = splitter()
        frames = [craft.udp(*PAIRS[4], 1, port) for port in range(350)]
        first = where(one, *frames)
        assert len(one._cache) <= 100
        assert where(one, *frames) == first

    def test_what_has_no_flow_all_goes_one_way(self):
        one = splitter()
        frames = [craft.arp_request("10.0.0.1", f"10.0.0.{n}") for n in range(9)]
        frames += [craft.ethernet(0x88CC, bytes(n)) for n in range(60)]
        assert len(set(where(one, *frames))) == 1

    def test_every_worker_gets_its_part(self):
        one = splitter()
        count = Counter(where(one, *(craft.udp(*PAIRS[4], 53, port) for port in range(2000))))
        assert set(count) == set(WORKERS)
        assert min(count.values()) > 350


class TestFragments:
    def flows(self):
        for port in range(30):
            for version in (4, 6):
                yield craft.udp(*PAIRS[version], 53, port, bytes(4000), ident=port + 1, dont_fragment=False), version

    def test_later_ones_follow_the_first(self):
        for frame, version in self.flows():
            # IPv6 fragments of our builder share an identification: one splitter each.
            one = splitter()
            pieces = craft.fragments(frame, 1280)
            plain = craft.udp(*PAIRS[version], 53, p.dissect(frame).key[-1])
            assert set(where(one, *pieces, plain)) == {where(one, pieces[0])[0]}

    def test_an_early_one_goes_by_addresses(self):
        one = splitter()
        pieces = craft.fragments(next(self.flows())[0], 1280)
        expected = WORKERS[slot(p.dissect(pieces[1]).key) % len(WORKERS)]
        assert where(one, *pieces[1:]) == [expected] * 3

    def test_only_so_many_are_remembered(self, monkeypatch):
        monkeypatch.setattr(shard, "FRAGMENTS", 3)
        one = splitter()
        for ident in range(10):
            frame = craft.udp(*PAIRS[4], 53, 1, bytes(2000), ident=ident, dont_fragment=False)
            one.split(craft.fragments(frame, 1280)[:1])
        assert len(one._slow._fragments) == 3

    def test_they_follow_it_to_another_worker(self):
        for frame, version in self.flows():
            one = splitter()
            pieces = craft.fragments(frame, 1280)
            one.split(pieces[:1])
            assert one.table(WorkerTable(2, ["a", "b"], [number % 2 for number in range(SLOTS)]))
            plain = craft.udp(*PAIRS[version], 53, p.dissect(frame).key[-1])
            assert set(where(one, *pieces[1:], plain)) == {["a", "b"][slot_of(p.dissect(pieces[0]).key) % 2]}


class TestErrors:
    @pytest.mark.parametrize("version", [4, 6])
    def test_an_error_goes_with_the_flow_it_speaks_of(self, version):
        one = splitter()
        guest, client = PAIRS[version]
        for port in range(60):
            question = craft.udp(client, guest, port, 53, b"question")
            answer = craft.udp(guest, client, 53, port, b"answer")
            error = craft.icmp_error(guest, client, question)
            assert len(set(where(one, question, answer, error))) == 1

    @pytest.mark.parametrize("kind", [0, 8, 13, 200])
    def test_other_icmp_goes_by_addresses(self, kind):
        about = craft.udp(*PAIRS[4], 1, 2)
        assert inner_key(p.dissect(craft.icmp_error(*PAIRS[4], about, kind=kind))) == b""

    @pytest.mark.parametrize("kind", [0, 5, 128, 135, 255])
    def test_other_icmpv6_goes_by_addresses(self, kind):
        about = craft.udp(*PAIRS[6], 1, 2)
        assert inner_key(p.dissect(craft.icmp_error(*PAIRS[6], about, kind=kind))) == b""

    @pytest.mark.parametrize("kind", [3, 4, 5, 11, 12])
    def test_icmp_errors(self, kind):
        about = craft.udp(*PAIRS[4], 1, 2)
        assert inner_key(p.dissect(craft.icmp_error(*PAIRS[4], about, kind=kind))) == p.dissect(about).key

    @pytest.mark.parametrize("kind", [1, 2, 3, 4])
    def test_icmpv6_errors(self, kind):
        about = craft.udp(*PAIRS[6], 1, 2)
        assert inner_key(p.dissect(craft.icmp_error(*PAIRS[6], about, kind=kind))) == p.dissect(about).key

    def test_an_error_that_quotes_too_little_goes_by_addresses(self):
        for version, (src, dst) in PAIRS.items():
            short = craft.icmp(src, dst, 3 if version == 4 else 1, 3, bytes(4) + bytes(10))
            assert inner_key(p.dissect(short)) == b""
            assert where(splitter(), short)


@given(st.lists(st.binary(max_size=100), max_size=20))
@settings(deadline=None)
def test_garbage_is_shared_out_like_anything(bodies):
    one = splitter()
    frames = [
        bytes(22) + ethertype + body for body in bodies for ethertype in (b"\x08\0\x45", b"\x86\xdd\x60", b"\x81\0")
    ]
    shares = one.split(frames)
    assert sorted(f for share in shares.values() for f in share) == sorted(frames)
