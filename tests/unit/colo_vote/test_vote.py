"""The core of `colo vote`: which request is due, and what the frame is told."""

import pytest

from colo_proto.core import Log, Tell
from colo_proto.messages import Voted, VoteWanted
from colo_vote.config import VoteConfig
from colo_vote.store import Holder
from colo_vote.vote import HOLD, LOOK, RELEASE, Vote

TTL = 5


def vote():
    return Vote(VoteConfig(store="etcd://192.0.2.9:2379", ttl=TTL, holder="a"))


def want(one, now, *, want=True, count=1, until=100.0, incarnation=7):
    assert one.tell(VoteWanted("primary", incarnation, count, want, until), now) == []


def told(outputs):
    return [one.message for one in outputs if isinstance(one, Tell)]


def events(outputs):
    return [one.event for one in outputs if isinstance(one, Log)]


def held(one, now=0.0):
    want(one, now)
    assert one.next(now) == HOLD
    return told(one.answered(Holder("primary a", 3, 5.0), now + 0.01))


def test_it_looks_until_the_frame_wants_the_key_and_tells_nobody():
    one = vote()
    assert one.next(0.0) == LOOK
    assert one.next(9.0) == "", "one request at a time"
    assert one.deadline() == float("inf")
    out = one.answered(Holder("secondary b", 2), 0.1)
    assert events(out) == ["store.found", "key.changed"]
    assert told(out) == []
    assert one.next(0.9) == ""
    assert one.next(1.0) == LOOK


def test_what_it_says_is_as_old_as_the_request():
    one = vote()
    (voted,) = held(one, 4.0)
    assert voted == Voted(7, 1, held=True, asked=4.0, ttl=5.0, token=3, holder="primary a")
    assert one.name == "primary a"


def test_a_store_that_keeps_the_key_for_longer_or_shorter():
    for ttl, said in ((60.0, 5.0), (2.0, 2.0)):
        one = vote()
        want(one, 0.0)
        one.next(0.0)
        assert told(one.answered(Holder("primary a", 3, ttl), 0.1))[0].ttl == said


def test_it_renews_and_tries_again_and_stops_when_the_frame_is_silent():
    one = vote()
    held(one)
    assert one.next(0.99) == ""
    assert one.next(1.0) == HOLD
    one.answered(Holder("secondary b", 4), 1.01)
    assert one.next(1.24) == ""
    assert one.next(1.25) == HOLD, "another one has it: try again soon"
    one.answered(Holder("primary a", 5, 5.0), 1.3)
    want(one, 1.4, until=2.0)
    assert one.next(2.3) == LOOK, "the frame is silent: the key is not renewed"
    assert told(one.answered(Holder("primary a", 5), 2.31))[0].held is False


def test_it_gives_the_key_up_on_the_frames_word_alone():
    one = vote()
    held(one)
    want(one, 0.5, want=False, count=2)
    assert one.next(0.5) == RELEASE
    out = one.answered(None, 0.51)
    assert told(out) == [Voted(7, 2, held=False, asked=0.5, ttl=5.0)]
    assert events(out) == ["key.changed"]
    assert one.next(9.0) == LOOK, "once is enough"


def test_a_wish_that_changes_while_the_store_is_asked():
    one = vote()
    want(one, 0.0)
    assert one.next(0.0) == HOLD
    want(one, 0.1, want=False, count=2)
    (voted,) = told(one.answered(Holder("primary a", 3, 5.0), 0.2))
    assert (voted.count, voted.held) == (2, False)
    assert one.next(0.2) == RELEASE, "it was granted all the same"
    want(one, 0.3, count=3)
    one.answered(None, 0.4)
    assert one.next(0.4) == HOLD


def test_a_failed_request_is_said_and_repeated_and_a_hold_that_failed_may_have_been_granted():
    one = vote()
    held(one)
    one.next(1.0)
    out = one.failed("no answer in time", 1.5)
    assert events(out) == ["store.lost"]
    (voted,) = told(out)
    assert (voted.error, voted.held) == ("no answer in time", False)
    assert one.next(1.74) == ""
    assert one.next(1.75) == HOLD
    assert events(one.failed("no answer in time", 2.0)) == [], "said once"
    assert one.gauges(2.0)["store_up"] == 0
    want(one, 2.1, want=False, count=2)
    assert one.next(2.25) == RELEASE
    assert "store.found" in events(one.answered(None, 2.3))


def test_a_note_is_written_at_once_and_kept_in_mind():
    one = vote()
    held(one)
    assert one.alone == ""
    one.tell(VoteWanted("primary", 7, 1, True, 99.0, "yes"), 0.5)
    assert (one.next(0.5), one.alone) == (HOLD, "yes")
    (voted,) = told(one.answered(Holder("primary a", 3, 5.0, "primary a"), 0.6))
    assert (voted.held, voted.alone) == (True, "primary a")
    one.tell(VoteWanted("primary", 7, 2, False, 99.0, "nonsense"), 0.7)
    assert (one.next(0.7), one.alone) == (RELEASE, "")
    assert told(one.answered(None, 0.8))[0].alone == "primary a"


@pytest.mark.parametrize("side", ["", "both", "primary "])
def test_a_wish_for_no_side_is_none(side):
    one = vote()
    one.tell(VoteWanted(side, 7, 1, True, 9.0), 0.0)
    assert one.next(0.0) == LOOK
    assert one.wish is None
