"""The frames that the table reads at fixed offsets go to the flows that dissecting them gives."""

import random
import struct

import pytest

import craft
from colo_compare.compare import Compare
from colo_compare.config import CompareConfig
from colo_compare.table import Table
from colo_compare.tcp.flow import TcpFlow
from colo_proto.net.tcp import ACK, FIN, PSH, RST, SYN

ENDS = [
    ("10.0.0.2", "10.0.0.9"), ("6.6.6.6", "10.6.0.9"), ("fd00::2", "fd00::9"),
    # Where an IPv4 frame has its protocol, these have a part of an address: 6, 17.
    ("fd06::2", "fd00::9"), ("fd11::2", "606::9"), ("6:606:606::6", "6::6"),
]  # fmt: skip
SHORTEST = 24


class Counting(Table):
    """A table that counts the frames that it dissects."""

    dissected = 0

    def receive_any(self, frame, now, *, primary):
        self.dissected += 1
        super().receive_any(frame, now, primary=primary)


class Dissecting(Counting):
    """A table that reads no frame at fixed offsets."""

    def receive(self, frames, now, *, primary):
        for frame in frames:
            self.receive_any(frame, now, primary=primary)


def any_frame(chance):
    """One of those that come often, and now and then one that is cut, damaged, tagged or padded."""
    src, dst = chance.choice(ENDS)
    payload = bytes(chance.choices(b"ab", k=chance.choice([0, 1, 3, 7, 8, 40])))
    more = {"tags": [5]} if chance.random() < 0.1 else {}
    if chance.random() < 0.6:
        flags = chance.choice([ACK, ACK | PSH, ACK | FIN, SYN | ACK, RST])
        seq, options = 1000 + chance.randrange(60), chance.choice([b"", craft.timestamps(1, 1)])
        frame = craft.tcp(src, dst, 80, 5000, seq, 500, flags, payload, window=500, options=options, **more)
    else:
        frame = craft.udp(src, dst, 53, 5000, payload, **more)
    kind = chance.random()
    if kind < 0.05:
        return frame[: chance.randrange(SHORTEST, len(frame) + 1)]
    if kind < 0.1:
        at = chance.randrange(22, len(frame))
        return frame[:at] + bytes([chance.randrange(256)]) + frame[at + 1 :]
    return frame + bytes(6) if kind < 0.15 else frame


@pytest.mark.parametrize("seed", range(40))
def test_what_is_read_at_fixed_offsets_is_what_dissecting_gives(seed):
    chance = random.Random(seed)
    quick, slow = Compare(CompareConfig()), Compare(CompareConfig())
    quick.table = Counting(quick.config, quick.ledger)
    slow.table = Dissecting(slow.config, slow.ledger)
    now = 1.0
    for _ in range(150):
        now += chance.choice([0.001, 0.2])
        frames = [any_frame(chance) for _ in range(chance.randrange(1, 4))]
        port = chance.choice(["primary_in", "secondary_in"])
        assert quick.receive(port, frames, now) == slow.receive(port, frames, now)
        assert quick.on_timer(now) == slow.on_timer(now)
    assert quick.counters == slow.counters
    assert quick.gauges() == slow.gauges()
    assert set(quick.table.flows) == set(slow.table.flows)
    assert 0 < quick.table.dissected < slow.table.dissected


def test_an_error_of_our_own_in_a_flow_is_not_taken_for_a_broken_frame(monkeypatch):
    def fails(*_):
        raise IndexError

    monkeypatch.setattr(TcpFlow, "primary", fails)
    with pytest.raises(IndexError):
        Compare(CompareConfig()).receive("primary_in", [craft.tcp(*ENDS[0], 80, 5000, 1, 1, ACK, b"x")], 1.0)
    monkeypatch.setattr(TcpFlow, "primary", lambda *_: struct.pack("B"))
    with pytest.raises(struct.error):
        Compare(CompareConfig()).receive("primary_in", [craft.tcp(*ENDS[0], 80, 5000, 1, 1, ACK, b"x")], 1.0)
