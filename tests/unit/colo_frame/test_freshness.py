"""Which claims of the other side are new, and which may be a recording."""

import pytest

from colo_frame.freshness import DRIFT, KNOWN, NEWS, REMEMBERED, RETIRED, STRANGERS, UNPROVEN, Freshness
from colo_proto.claim import MAX_ANSWERS, Stand, State

US, PEER = 7, 9
PATIENCE = 2.0


class Other:
    """The other side: what it claims is true, but may arrive at any time."""

    def __init__(self, incarnation=PEER, clock=100.0):
        self.incarnation = incarnation
        self.clock = clock
        self.count = 0

    def say(self, now, *repeats, echo=(0, 0)):
        self.count += 1
        sent = int((now + self.clock) * 1000)
        return Stand(
            "secondary", self.incarnation, self.count, 0, State.STANDBY, sent_ms=sent, echo_of=echo[0], echo=echo[1],
            answers=repeats,
        )  # fmt: skip


def listener(now=0.0):
    """We have made claim 1 just now."""
    fresh = Freshness(US, PATIENCE, 0.0)
    fresh.said(1, now)
    return fresh


def met(now=0.0):
    """The other side has proved itself."""
    fresh, other = listener(now), Other()
    assert fresh.judge(other.say(now, (US, 1)), now) == NEWS
    assert fresh.believed == PEER
    return fresh, other


def test_a_start_proves_itself_by_an_answer_to_our_word():
    fresh, other = listener(), Other()
    assert fresh.judge(other.say(0.0), 0.0) == UNPROVEN
    assert fresh.believed == 0
    assert fresh.answers(0.0) == ((PEER, 1),)
    assert fresh.judge(other.say(0.1, (US, 1)), 0.1) == NEWS
    assert fresh.believed == PEER
    assert fresh.answers(0.1) == (), "there is nobody left who has to prove anything"


@pytest.mark.parametrize(
    "repeats",
    [(), ((US, 2),), ((US, 0),), ((US + 1, 1),), ((PEER, 1),)],
    ids=["nothing", "a word to come", "no word", "another start of ours", "itself"],
)
def test_nothing_else_proves_it(repeats):
    fresh = listener()
    assert fresh.judge(Other().say(0.0, *repeats), 0.0) == UNPROVEN


def test_an_echo_proves_as_much_as_an_answer():
    assert listener().judge(Other().say(0.0, echo=(US, 1)), 0.0) == NEWS


def test_an_answer_to_an_old_word_proves_nothing():
    assert listener().judge(Other().say(0.1, (US, 1)), PATIENCE) == NEWS
    assert listener().judge(Other().say(0.1, (US, 1)), PATIENCE + 0.01) == UNPROVEN


def test_a_count_that_was_heard_is_no_news_and_neither_is_a_lower_one():
    fresh, other = met()
    words = [other.say(0.1 * n, (US, 1)) for n in range(5)]
    assert fresh.judge(words[3], 0.5) == NEWS
    assert [fresh.judge(word, 0.5) for word in words] == [KNOWN] * 4 + [NEWS]
    assert fresh.answers(0.5) == ()


def test_a_start_that_was_followed_by_another_is_never_believed_again():
    fresh, before = met()
    last = before.say(0.0, (US, 1))
    assert fresh.judge(Other(PEER + 1).say(0.1, (US, 1)), 0.1) == NEWS
    assert fresh.believed == PEER + 1
    # Its answer is young enough, and its count was not heard.
    assert fresh.judge(last, 0.1) == KNOWN
    assert fresh.judge(before.say(0.2, (US, 1)), 0.2) == KNOWN
    assert fresh.answers(0.2) == ()


def test_a_start_of_before_our_own_is_not_believed_whatever_it_says():
    fresh, other = Freshness(US + 1, PATIENCE, 0.0), Other()
    fresh.said(1, 0.0)
    words = [other.say(0.01 * n, (US, n)) for n in range(50)]
    assert {fresh.judge(word, 1.0) for word in words} == {UNPROVEN}


def test_who_does_not_hear_us_is_believed_by_its_clock():
    fresh, other = met()
    for second in range(1, 300):
        assert fresh.judge(other.say(second), second + 0.1) == NEWS


def test_and_held_back_words_are_not():
    fresh, other = met()
    words = [other.say(second / 10) for second in range(10, 100)]
    assert fresh.judge(words[0], 30.0) == UNPROVEN
    assert {fresh.judge(word, 39.9) for word in words[1:]} == {UNPROVEN}
    assert fresh.judge(other.say(39.9), 40.0) == NEWS


def test_words_that_were_held_back_half_a_minute_are_not_believed_although_they_answer_us():
    fresh, other = met()
    for count in range(2, 60):
        fresh.said(count, count / 2)
    late = [other.say(count / 2, (US, count)) for count in range(2, 20)]
    assert {fresh.judge(word, 40.0) for word in late} == {UNPROVEN}


def test_clocks_that_part_are_learnt_again_from_each_answer():
    """The other clock is as slow as a clock may be: while the other side answers, all its claims are believed."""
    fresh, other = met()
    for count in range(2, 20000):
        now = count / 2
        other.clock = 100.0 - 0.9 * DRIFT * now
        fresh.said(count, now)
        assert fresh.judge(other.say(now, (US, count - 1)), now + 0.01) == NEWS
    assert fresh.judge(other.say(now), now + 0.5) == NEWS
    assert fresh.judge(other.say(now), now + PATIENCE) == UNPROVEN


def test_a_clock_that_stood_still_is_learnt_again():
    fresh, other = met()
    other.clock -= 3600.0
    assert fresh.judge(other.say(1.0), 1.0) == UNPROVEN
    assert fresh.answers(1.0) == ((PEER, other.count),), "it is helped to prove itself"
    fresh.said(2, 1.0)
    assert fresh.judge(other.say(1.1, (US, 2)), 1.1) == NEWS
    assert fresh.judge(other.say(1.5), 1.6) == NEWS


def test_the_true_one_is_answered_among_many_recordings():
    fresh = listener()
    for name in range(1000, 1000 + STRANGERS - 1):
        fresh.judge(Other(name).say(0.0), 0.0)
    for _ in range(20):
        fresh.answers(0.0)
    other = Other()
    assert fresh.judge(other.say(0.0), 0.0) == UNPROVEN
    assert (PEER, 1) in fresh.answers(0.0)
    assert len(fresh.answers(0.0)) == MAX_ANSWERS


def test_nothing_grows():
    fresh = listener()
    for name in range(1, 2000):
        fresh.said(name, 0.0)
        fresh.judge(Other(10000 + name).say(0.0), 0.0)
        fresh.judge(Other(50000 + name).say(0.0, (US, name)), 0.0)
    assert len(fresh._made) <= REMEMBERED
    assert len(fresh._strangers) <= STRANGERS
    assert len(fresh._retired) <= RETIRED
    assert fresh.answers(PATIENCE + 0.1) == (), "who is not heard any more is not answered"
