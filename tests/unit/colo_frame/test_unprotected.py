"""What the frames pass on between the filters of the two hosts: which connections a failover cannot continue, and for
which neighbours somebody has to ask.
"""

from dataclasses import replace

import pytest

from colo_frame.frame import Frame
from colo_frame.pair import CATCHES_UP
from colo_frame.peer import PEER
from colo_proto.messages import MAX_ASK, MAX_KEYS, LanAsk, SetMode, Unprotected, Welcome

from .frames import PRIMARY, hello, report, told
from .test_pair import Pair

KEY = b"\x06" + bytes(12)
LOST = Unprotected("comp0", 1, lost=[KEY])


def at_rewriter(pair):
    return told(pair.heard["s"], Unprotected, "rew0")


class Deaf(Pair):
    """A pair whose rewriter reports what it has heard, as long as it is not deaf."""

    def __init__(self):
        self.versions = {}
        super().__init__()

    def take(self, side, outputs):
        for one in told(outputs, Unprotected, "rew0"):
            self.versions[one.source] = one.version
        super().take(side, outputs)

    def hear(self, side, sender, message):
        if sender == "rew0" and message == report("rewriter", "rew0"):
            message = report("rewriter", "rew0", status={"unprotected": dict(self.versions)})
        return super().hear(side, sender, message)


def test_it_goes_from_compare_to_the_rewriter():
    pair = Pair()
    pair.hear("p", "comp0", LOST)
    assert at_rewriter(pair) == [LOST]


@pytest.mark.parametrize(
    "message",
    [
        Unprotected("comp1", 1, lost=[KEY]),
        Unprotected("comp0", 1, everything=True),
        Unprotected("comp0", 1, lost=[bytes(65)]),
        Unprotected("comp0", 1, kept=[b""]),
        Unprotected("comp0", 1, lost=[KEY] * MAX_KEYS, doubtful=[KEY]),
    ],
)
def test_what_no_compare_says_is_ignored(message):
    pair = Pair()
    pair.hear("p", "comp0", message)
    assert not told(pair.heard["p"], Unprotected)
    assert pair.p.counters["ignored_messages"] == 1


def test_others_cannot_say_it():
    pair = Pair()
    pair.hear("p", "m0", hello("mirror", "m0"))
    pair.hear("p", "m0", Unprotected("m0", 1, lost=[KEY]))
    pair.hear("p", "nobody", LOST)
    assert not told(pair.heard["p"], Unprotected)


def test_the_secondary_checks_what_comes_over_the_link():
    pair = Pair()
    pair.take("s", pair.s.hear(PEER, Unprotected("comp0", 1, lost=[bytes(99)]), 0.0))
    assert not at_rewriter(pair)
    assert pair.s.counters["ignored_messages"] == 1
    pair.take("p", pair.p.hear(PEER, LOST, 0.0))
    assert not told(pair.heard["p"], Unprotected), "the primary takes it from its compares only"


def test_what_was_lost_is_told_again():
    pair = Deaf()
    pair.cut = True
    pair.hear("p", "comp0", LOST)
    pair.cut = False
    before = len(pair.heard["p"])
    pair.run(6.0)
    assert told(pair.heard["p"][before:], Welcome, "comp0"), "compare answers that with everything"
    pair.hear("p", "comp0", Unprotected("comp0", 2, again=True, lost=[KEY]))
    before = len(pair.heard["p"])
    pair.run(20.0)
    assert not told(pair.heard["p"][before:], Welcome, "comp0"), "it is there now"


def test_a_rewriter_that_was_restarted_is_told_everything():
    pair = Deaf()
    pair.hear("p", "comp0", LOST)
    pair.run(10.0)
    assert not pair.p.counters["unprotected_again"]
    pair.versions.clear()
    pair.hear("s", "rew0", hello("rewriter", "rew0", incarnation=2))
    pair.run(15.0)
    assert pair.p.counters["unprotected_again"] >= 1


def test_a_compare_that_has_gone_is_asked_for_nothing():
    pair = Deaf()
    pair.hear("p", "comp1", hello(name="comp1"))
    pair.hear("p", "comp1", Unprotected("comp1", 1, lost=[KEY]))
    pair.run(10.0)
    pair.versions.clear()
    before = len(pair.heard["p"])
    pair.run(30.0)
    assert not told(pair.heard["p"][before:], Welcome, "comp1")


def test_a_resync_that_copies_nothing_loses_all_that_is_open_before_compares_hear_of_it():
    pair = Deaf()
    pair.run(2.0)
    before = len(pair.heard["p"])
    pair.p.resync(pair.now)
    pair.take("p", pair.p.side.out.take())
    pair.run(5.0)
    heard = [one.message for one in pair.heard["p"][before:] if hasattr(one, "message")]
    kinds = [type(one) for one in heard]
    assert kinds.index(Unprotected) < kinds.index(SetMode)
    assert at_rewriter(pair)[-1].everything


def left_alone(pair):
    pair.p.side.modes.go_alone()
    pair.take("p", pair.p.side.out.take())


def away():
    """The link has been cut for longer than the timeout, and the primary goes on alone."""
    pair = Deaf()
    pair.p = Frame(replace(PRIMARY, resync="auto"), 3)
    pair.hear("p", "comp0", hello())
    pair.hear("p", "m0", hello("mirror", "m0"))
    pair.run(1.0)
    pair.cut = True
    pair.run(6.0)
    left_alone(pair)
    return pair


def behind(pair, frames):
    """So many frames of the mirror are not acknowledged."""
    pair.hear("p", "m0", report("mirror", "m0", gauges={"link.outdev.unacknowledged": frames}))


def test_a_secondary_that_was_away_has_nothing_that_can_be_continued_and_is_compared_once_it_has_caught_up():
    pair = away()

    behind(pair, 40_000)
    pair.cut = False
    pair.run(7.0)
    assert at_rewriter(pair)[-1].everything
    assert pair.p.side.modes.mode == "bypass", "the link still replays what was missed"
    behind(pair, 100)
    pair.run(11.0)
    assert pair.p.side.modes.mode == "enforce"
    assert [one.everything for one in at_rewriter(pair)].count(True) >= 2


def test_a_secondary_that_does_not_catch_up_is_compared_after_a_while():
    pair = away()
    behind(pair, 99_999)
    pair.cut = False
    pair.run(10.0)
    assert pair.p.side.modes.mode == "bypass"
    pair.run(6.0 + CATCHES_UP + 3)
    assert pair.p.side.modes.mode == "enforce"


def test_a_neighbour_is_asked_for_by_the_primarys_mirror_while_that_host_may_write():
    pair = Pair()
    pair.hear("p", "m0", hello("mirror", "m0"))
    pair.run(2.0)
    pair.hear("s", "rew0", LanAsk(b"who has", 0.0))
    (ask,) = told(pair.heard["p"], LanAsk, "m0")
    assert ask.frame == b"who has"
    assert ask.until > pair.now
    pair.hear("s", "rew0", LanAsk(bytes(MAX_ASK + 1)))
    pair.hear("s", "f1", hello("redirector", "f1"))
    pair.hear("s", "f1", LanAsk(b"who has"))
    pair.hear("p", "comp0", LanAsk(b"who has"))
    pair.p.side.ownership.leadership.state = "fenced"
    pair.hear("s", "rew0", LanAsk(b"who has"))
    assert len(told(pair.heard["p"], LanAsk, "m0")) == 1
