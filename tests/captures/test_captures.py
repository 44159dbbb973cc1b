"""Captures as traffic of two equal guests, and of two that differ in one byte."""

import subprocess
from collections import Counter, defaultdict
from random import Random

import pytest

from captures.replaying import compared, flipped, flips, recut, right, same, segment_of, shifted, without_window
from colo_proto.frame import ETH
from colo_proto.net import flow as flows
from colo_proto.net.tcp import ACK, RST, SYN
from colo_runtime.capture import CaptureWriter, read_capture
from parity.rigs import colo, environ
from rewriting import Play

PER_FLOW = 6
"""Number of bytes that are changed in each flow of a capture."""


def test_the_captures_hold_conversations(talks):
    assert sum(talk.both for _, talk in talks) >= 6
    assert sum(len(talk.frames) for _, talk in talks) > 300


@pytest.mark.parametrize("lag", [0, 7, -7])
def test_equal_guests_never_ask_for_a_checkpoint(talks, lag):
    for name, talk in talks:
        frames = [packet.frame for packet in talk.guest_packets()]
        play = compared(frames, frames, lag)
        assert not play.wanted, (name, play.wanted)
        assert play.held == 0, name
        counters = play.core.counters
        # Only what cannot be decided: datagrams with a missing fragment, and what a reset or a new SYN has ended.
        lost = {key for key, n in counters.items() if key.startswith("dropped.") and n}
        assert lost <= {"dropped.fragments", "dropped.reset", "dropped.replaced"}, (name, lost)
        if not lost:
            # A released window may be lowered until the secondary has offered as much; then it is announced.
            extra = Counter(map(without_window, play.sent)) - Counter(map(without_window, frames))
            assert extra.total() == counters["synthesized"], name
            assert len(play.sent) == len(frames) + counters["synthesized"], name


@pytest.mark.parametrize("size", [1, 100, 536])
def test_nor_do_guests_that_cut_their_segments_differently(talks, size):
    for name, talk in talks:
        packets = talk.guest_packets()
        if sum(len(packet.frame) for packet in packets) > 40_000 and size == 1:
            continue
        its = [frame for packet in packets for frame in recut(packet, size)]
        play = compared([packet.frame for packet in packets], its)
        assert not play.wanted, (name, play.wanted)
        assert play.held == 0, name


def test_one_changed_byte_is_found_every_time_at_the_right_place(talks):
    random = Random(1)
    tried = 0
    for name, talk in talks:
        packets = talk.guest_packets()
        by_flow = defaultdict(list)
        for flip in flips(packets):
            by_flow[flip.key].append(flip)
        for key, some in by_flow.items():
            for flip in random.sample(some, min(PER_FLOW, len(some))):
                want = flipped(packets, flip)
                assert right(flip, want), (name, flows.describe(key), flip, want)
                assert want.flow == flows.describe(key)
                tried += 1
    assert tried > 50, tried


OFFSET, STAMP = 0x9ABCDEF0, 0xFEDCBA90


def test_a_secondary_with_other_numbers_continues_the_primarys_stream(talks):
    """The guest's side of the capture, with other numbers, comes out of the rewriter as it was captured."""
    settled_frames = 0
    for name, talk in talks:
        play = Play()
        known, opening = trackable(talk)
        for packet in talk.packets:
            seg = segment_of(packet)
            tcp = known.get(either_way(packet.key)) if seg is not None else None
            if seg is not None and tcp is None and either_way(packet.key) in opening:
                # Half of a handshake, or several: scenarios test what is held then and what passes.
                continue
            guest = talk.of_guest(packet)
            given = packet.frame
            if tcp is not None and guest:
                given = shifted(packet, seq=OFFSET, tsval=STAMP if tcp.stamps else 0)
            play.send(given, "netdev" if guest else "indev")
            # Answers to the guest's neighbour requests come in addition.
            out = play.to_client.pop(0) if guest else play.to_guest.pop(0)
            want = given
            if tcp is not None and tcp.learn(seg, guest):
                settled_frames += 1
                want = packet.frame if guest else shifted(packet, ack=OFFSET, tsecr=STAMP if tcp.stamps else 0)
            assert same(out, want, packet), (name, flows.describe(packet.key), seg, out.hex(), want.hex())
            play.to_client.clear()
            play.to_guest.clear()
    assert settled_frames > 50, settled_frames


class Handshake:
    """True when both initial numbers of a connection are known."""

    def __init__(self):
        self.step = 0
        self.stamps = False
        self.isn = self.client = None

    def learn(self, seg, guest):
        """True when this segment is to be shifted."""
        if self.step == 0 and seg.flags & SYN and not guest:
            self.step, self.client = 1, seg.seq
        elif self.step == 1 and seg.flags & SYN and guest:
            self.step = 2
        elif self.step == 2 and not guest and seg.flags & ACK and not seg.flags & SYN:
            self.step = 3
        return self.step == 3


def either_way(key):
    """The key that both directions of a flow have in common."""
    return min(key, flows.reverse(key))


def trackable(talk):
    """Connections whose handshake is in the capture completely, once and without resets, by the key of both directions,
    and the keys of all that have a SYN.
    """
    found, spoilt = {}, set()
    for packet in talk.packets:
        seg = segment_of(packet)
        if seg is None:
            continue
        key, guest = either_way(packet.key), talk.of_guest(packet)
        one = found.get(key)
        if one is None:
            one = found[key] = Handshake()
            if not seg.flags & SYN or seg.flags & ACK or guest:
                spoilt.add(key)
        if seg.flags & SYN:
            number = "isn" if guest else "client"
            if getattr(one, number) not in (None, seg.seq):
                spoilt.add(key)
            setattr(one, number, seg.seq)
        elif one.isn is None:
            spoilt.add(key)
        if seg.flags & RST:
            spoilt.add(key)
    opening = {key for key, one in found.items() if (one.isn, one.client) != (None, None)}
    return {key: fresh(one) for key, one in found.items() if key not in spoilt and one.isn is not None}, opening


def fresh(one):
    again = Handshake()
    again.isn = one.isn
    return again


def test_a_capture_through_the_process_itself(own, tmp_path):
    """`pcap://` in, `pcap://` out."""
    _, talk = next(item for item in own if item[0].startswith("web4"))
    frames = [packet.frame[ETH:] for packet in talk.guest_packets()]
    source, target = tmp_path / "in.pcap", tmp_path / "out.pcap"
    with source.open("wb") as file:
        writer = CaptureWriter(file)
        for frame in frames:
            writer.write(frame, 1.0)
    ends = ["--primary-in", f"pcap://{source}", "--secondary-in", f"pcap://{source}", "--outdev", f"pcap://{target}"]
    command = colo("compare", "--id", "comp0", *ends, "--max-queue-size", "100000")
    subprocess.run(command, env=environ(), check=True, timeout=120, capture_output=True)
    with target.open("rb") as file:
        assert sorted(read_capture(file)) == sorted(frames)
