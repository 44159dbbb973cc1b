"""What a third vote changes for a side, and what it does not. The interactions in `testdata/vote-*.txt` show more."""

from dataclasses import replace

import pytest

from colo_frame.config import FrameConfig
from colo_frame.thirdvote import PART, ThirdVote
from colo_proto.claim import State
from colo_proto.errors import ConfigError
from colo_proto.messages import Hello, Voted
from colo_runtime.options import Setting
from colo_runtime.service import check, services
from ownership_host import TTL
from ownership_world import World

INCARNATION = 7
GRANTED = Voted(INCARNATION, 1, held=True, asked=10.0, ttl=3.0, token=5, holder="primary a")


def wanting():
    vote = ThirdVote("primary", INCARNATION, 2.5, 1.6, 0.0)
    vote.want(True)
    return vote


def up(**options):
    world = World(vote=True, failover="vote", **options).run(4.0)
    assert (world.p.state, world.s.state) == ("holding", "standby")
    assert world.p.frame.side.ownership.votes.word(world.p.now) == "held"
    return world


def status(host):
    return host.frame.status(host.now)["leadership"]


# -- the key -----------------------------------------------------------------------------------------


def test_the_lease_begins_when_the_request_was_sent():
    vote = wanting()
    assert vote.hear(GRANTED, 11.0)
    assert vote.held_until == 10.0 + 3.0 * PART
    assert vote.held(11.9)
    assert not vote.held(12.0)


@pytest.mark.parametrize(
    "change",
    [
        {"ttl": 0.0},
        {"ttl": -1.0},
        {"ttl": float("nan")},
        {"ttl": float("inf")},
        {"ttl": 1e9},
        {"asked": 11.1},
        {"asked": float("nan")},
        {"asked": float("inf")},
        {"token": -1},
        {"token": 1 << 62},
    ],
)
def test_what_makes_no_sense_changes_nothing(change):
    vote = wanting()
    assert not vote.hear(replace(GRANTED, **change), 11.0)
    assert not vote.held(11.0)
    assert vote.heard == float("-inf")


@pytest.mark.parametrize("change", [{"count": 0}, {"count": 2}, {"incarnation": 6}])
def test_an_answer_to_another_wish_is_not_believed(change):
    vote = wanting()
    assert vote.hear(replace(GRANTED, **change), 11.0)
    assert not vote.held(11.0)


def test_what_was_granted_before_the_key_was_given_up_does_not_count():
    vote = wanting()
    vote.hear(GRANTED, 11.0)
    vote.want(False)
    assert not vote.held(11.0)
    vote.want(True)
    vote.hear(GRANTED, 11.1)
    assert not vote.held(11.1), "it was given up in between, and another one may have it"
    vote.hear(replace(GRANTED, count=3, asked=11.0), 11.2)
    assert vote.held(11.2)


def test_a_key_that_is_lost_is_lost_at_once_and_a_store_that_is_out_of_reach_takes_nothing_away():
    vote = wanting()
    vote.hear(GRANTED, 11.0)
    vote.hear(Voted(INCARNATION, 1, held=False, asked=11.0, ttl=3.0, error="no answer in time"), 11.1)
    assert vote.held(11.1)
    assert not vote.answers(11.1)
    vote.hear(Voted(INCARNATION, 1, held=False, asked=11.2, ttl=3.0, holder="secondary b", token=6), 11.3)
    assert not vote.held(11.3)
    assert vote.denied(11.3)


# -- to agree ----------------------------------------------------------------------------------------


def test_who_may_agree():
    vote = wanting()
    for state in State.ALL:
        assert vote.may_agree(state, 5.0, writing=False) == (state in ("standby", "fenced")), state
    assert not vote.may_agree("standby", 0.3, writing=False), "its processes may still know of a promotion"
    assert not vote.may_agree("fenced", 5.0, writing=True)


def test_without_a_third_vote_nobody_agrees():
    world = World().run(4.0)
    for host in world.hosts.values():
        other = host.frame.side.ownership.leadership.other
        assert (other.vote, other.agrees) == (False, False)
        assert "vote" not in status(host)


# -- the pair ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("letter", ["p", "s"])
def test_a_vote_process_that_hangs_or_is_restarted_changes_nothing_while_the_pair_is_whole(letter):
    world = up()
    world.freeze(letter, "vote")
    for _ in range(1000):
        world.run(0.01)
        assert world.p.could_write()
    world.freeze(letter, "vote", frozen=False)
    world.hosts[letter].start_vote()
    for _ in range(500):
        world.run(0.01)
        assert world.p.could_write()
    assert status(world.p)["vote"]["state"] == "held"


def test_frames_that_are_restarted_while_the_store_is_down_go_on_without_a_pause():
    world = up()
    world.store = {"p": False, "s": False}
    world.run(5.0)
    for letter in "sspp":
        world.hosts[letter].start_frame()
        for _ in range(400):
            world.run(0.01)
            assert letter == "p" or world.p.could_write()
    assert world.p.could_write()
    assert status(world.p)["vote"]["state"] == "agreed"


def test_the_token_of_the_store_orders_promotions_even_when_nobody_has_heard_of_the_other_ones():
    world = up()
    world.link = world.lan = False
    world.store["p"] = False
    world.until(world.s.could_write, TTL + 1)
    assert status(world.s)["vote"]["token"] > status(world.p)["vote"]["token"]
    fences = [host.frame.side.ownership.leadership.fence for host in (world.p, world.s)]
    assert fences[1] > fences[0]
    assert fences[1] % 2 == 1


def test_a_side_without_a_third_vote_beside_one_that_has_it_is_an_error():
    world = up()
    world.s.options["vote"] = False
    world.s.start_frame()
    world.run(2.0)
    for host in (world.p, world.s):
        (said,) = [one for one in host.logs if one.event == "vote.mismatched"]
        assert said.level == "error"
        assert host.frame.gauges()["vote_mismatch"] == 1
        assert status(host)["vote_mismatch"] is True
    world.s.options["vote"] = True
    world.s.start_frame()
    world.run(2.0)
    assert world.p.frame.gauges()["vote_mismatch"] == 0


def test_only_a_vote_process_is_believed():
    world = up()
    world.store["p"] = False
    world.kill("s")
    world.kill("p", "vote")
    world.run(5.0)
    assert not world.p.could_write()
    leadership = world.p.frame.side.ownership.leadership
    world.p.to_frame("liar", Hello("compare", "liar", 1))
    vote = leadership.vote
    forged = Voted(vote.incarnation, vote.count, held=True, asked=world.p.now, ttl=60.0, token=99, holder="primary x")
    world.p.to_frame("liar", forged)
    world.run(1.0)
    assert not world.p.could_write()
    assert world.p.frame.counters["ignored_messages"] >= 1


def test_it_takes_over_by_itself_only_if_it_may():
    for failover, takes in (("vote", True), ("auto", True), ("manual", False)):
        world = World(vote=True, failover=failover).run(4.0)
        world.kill("p")
        world.run(10.0)
        assert world.s.could_write() is takes, failover
    assert not FrameConfig().automatic
    assert FrameConfig(vote=True).automatic


def test_a_vote_needs_another_side():
    service = services()["frame"]
    table = service.table()
    given = {"listen": "ipc:///run/c.sock", "vote": "on"}
    with pytest.raises(ConfigError, match="--vote: needs a --peer"):
        check(service, table, {name: Setting(table[name].parse(value, name), "") for name, value in given.items()})
