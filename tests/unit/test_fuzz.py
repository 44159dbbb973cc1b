"""A short run of the fuzzer; the long one is `make fuzz`. And the fuzzer sees what it is there to see."""

import pytest

from colo_compare.ledger import Ledger
from colo_proto import codec, replay
from colo_proto.net import packet as p
from colo_rewriter.waiting import Waiting
from fuzz.runner import INPUTS, FoundError, one_round, run
from fuzz.targets import TARGETS

pytestmark = pytest.mark.slow

SEED = 20


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_escapes_and_the_books_add_up(target):
    assert run(SEED, 16_000, target) == {target: 16_000}


def test_the_wheel_reaches_every_target():
    assert set(run(SEED, INPUTS * sum(share for _, share in TARGETS.values()))) == set(TARGETS)


def test_a_round_is_the_same_every_time(monkeypatch):
    seen = []
    monkeypatch.setitem(TARGETS, "proto", (lambda random, inputs: seen.append((random.random(), inputs)), 1))
    for number in (3, 3, 4):
        one_round(7, number, only="proto")
    assert seen[0] == seen[1] != seen[2]


def _broken_unhold(self, held):
    if not held.out:
        self.held -= 1


def _broken_dissect(frame):
    packet = p.Packet(frame)
    packet.kind = p.Kind.IP
    packet.key = p.flow_key(6, frame[36:40], frame[40:44], frame[44:48], b"")
    packet.l4, packet.end = 44, 9999
    return packet


@pytest.mark.parametrize(
    ("target", "where", "name", "broken"),
    [
        ("compare", Ledger, "unhold", _broken_unhold),
        ("compare", Ledger, "secondary_pieces", lambda self, pieces: None),
        ("rewriter", Waiting, "take", lambda self, flow: flow.held),
        ("wire", codec, "_fits", lambda value, hint: True),
        ("wire", replay.ReplaySender, "push", lambda self, frames: frames[0].no_such_thing),
        ("proto", "fuzz.views.p", "dissect", _broken_dissect),
    ],
)
def test_what_is_broken_is_found(monkeypatch, target, where, name, broken):
    if isinstance(where, str):
        monkeypatch.setattr(f"{where}.{name}", broken)
    else:
        monkeypatch.setattr(where, name, broken)
    with pytest.raises(FoundError, match="again: python -m tests.fuzz --seed 20 --round"):
        run(SEED, 20_000, target)
