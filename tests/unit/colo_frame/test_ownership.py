"""One writer to the client LAN, whatever dies, stalls or is cut off: two COLO frames in a world that is modelled."""

import pytest
from hypothesis import given, settings

from colo_proto.messages import Mode
from ownership_search import FAILOVER, SCRIPTS, VOTE_SCRIPTS, play
from ownership_world import World

DETECTION = 2.5
"""Default heartbeat interval times missed ones, seconds."""


def up(**options):
    world = World(**options).run(3.0)
    assert (world.p.state, world.s.state) == ("holding", "standby")
    assert world.p.could_write()
    assert not world.s.could_write()
    return world


def test_the_primary_writes_as_soon_as_it_knows_that_it_may():
    world = World()
    world.until(world.p.could_write, 1.0)
    world.run(60.0)
    assert (world.p.state, world.s.state) == ("holding", "standby")


def test_a_primary_without_a_secondary_waits_for_an_answer_and_then_writes():
    world = World()
    world.kill("s")
    world.until(lambda: world.p.state == "alone", DETECTION + 1)
    world.until(world.p.could_write, 0.1)
    assert world.p.frame.side.modes.mode == Mode.ENFORCE, "nobody was lost: the secondary may still be starting"


def test_the_primary_host_dies():
    world = up()
    died = world.now
    world.kill("p")
    world.until(world.s.could_write, DETECTION + 0.6)
    assert world.now - died > DETECTION - 0.6
    assert world.s.frame.side.ownership.leadership.fence == 1
    assert world.s.frame.status(world.now)["leadership"]["promotion"]["silence_ms"] == pytest.approx(2500, abs=20)


def test_it_does_not_take_over_by_itself_unless_it_is_told_that_it_may():
    world = up(failover="manual")
    world.kill("p")
    world.run(60.0)
    assert world.s.state == "standby"
    assert world.ask("s", "failover").ok
    world.until(world.s.could_write, 0.1)


def test_the_link_between_the_hosts_is_cut_and_both_live():
    world = up()
    world.link = False
    world.until(lambda: world.p.state == "alone", DETECTION + 1.1)
    assert world.p.frame.side.modes.mode == Mode.BYPASS
    world.run(120.0)
    assert (world.p.state, world.s.state) == ("alone", "standby")
    assert not world.s.frame.side.ownership.leadership.promotable, "what left since was not compared"
    # Now even the primary's death does not make a replica of what was left behind.
    world.kill("p")
    world.run(60.0)
    assert world.s.state == "standby"
    refused = world.ask("s", "failover")
    assert not refused.ok
    assert "--force" in refused.error
    assert world.ask("s", "failover", force=True).ok
    world.until(world.s.could_write, 5.0)


def test_the_lan_alone_is_cut():
    world = up()
    world.lan = False
    world.run(60.0)
    assert (world.p.state, world.s.state) == ("holding", "standby")


def test_the_primary_host_stands_still_and_wakes_after_the_failover():
    world = up()
    world.freeze("p")
    world.until(world.s.could_write, DETECTION + 0.6)
    world.run(5.0)
    world.freeze("p", frozen=False)
    world.run(10.0)
    assert (world.p.state, world.s.state) == ("fenced", "promoted")
    last = [log.fields for log in world.p.logs if log.event == "leadership.changed"][-1]
    assert last["after"] == "fenced"
    assert "does not write" in last["why"]


def test_it_wakes_while_the_link_is_cut():
    world = up()
    world.freeze("p")
    world.until(world.s.could_write, DETECTION + 0.6)
    world.link = False
    world.freeze("p", frozen=False)
    world.run(10.0)
    assert (world.p.state, world.s.state) == ("fenced", "promoted"), "it heard so on the LAN"


def test_it_wakes_with_nothing_in_its_queues():
    """No message about the promotion waits for it: it must ask before it grants leases again."""
    world = up()
    world.freeze("p")
    world.until(world.s.could_write, DETECTION + 0.6)
    for _ in range(5):
        world.run(0.09)
        for one in world.p.processes.values():
            one.inbox.clear()
    world.freeze("p", frozen=False)
    world.run(10.0)
    assert (world.p.state, world.s.state) == ("fenced", "promoted")


def test_a_short_pause_changes_nothing():
    world = up()
    for _ in range(20):
        world.freeze("p")
        world.run(1.0)
        world.freeze("p", frozen=False)
        world.run(1.0)
    assert (world.p.state, world.s.state) == ("holding", "standby")


def test_the_secondary_stands_still_and_does_not_take_its_own_deafness_for_silence():
    world = up()
    world.freeze("s")
    world.run(20.0)
    assert world.p.state == "alone"
    world.freeze("s", frozen=False)
    world.run(20.0)
    assert (world.p.state, world.s.state) == ("holding", "standby")


def test_a_deaf_ear_is_no_silence():
    world = up()
    world.kill("s", "f1")
    world.link = False
    world.run(30.0)
    assert world.s.state == "standby"


def test_a_primary_that_cannot_be_heard_stops_before_the_other_begins():
    world = up()
    world.freeze("p", "m0")
    world.link = False
    world.until(lambda: not world.p.could_write(), DETECTION)
    world.run(10.0)
    assert world.s.state == "promoted"


def test_the_old_primary_host_is_started_again():
    world = up()
    world.kill("p")
    world.until(world.s.could_write, DETECTION + 0.6)
    for one in world.p.processes.values():
        one.dead = False
    world.p.start_frame()
    world.run(10.0)
    assert (world.p.state, world.s.state) == ("fenced", "promoted")


def test_frames_are_restarted_after_the_failover_and_learn_from_their_processes():
    world = up()
    world.freeze("p")
    world.until(world.s.could_write, DETECTION + 0.6)
    world.freeze("p", frozen=False)
    world.run(3.0)
    world.s.start_frame()
    world.p.start_frame()
    world.run(10.0)
    assert (world.p.state, world.s.state) == ("fenced", "promoted")
    assert world.s.could_write()


def test_a_restarted_frame_of_either_side_changes_nothing():
    world = up()
    for letter in "pspps":
        world.hosts[letter].start_frame()
        world.run(4.0)
    assert (world.p.state, world.s.state) == ("holding", "standby")
    assert world.p.frame.side.modes.mode == Mode.ENFORCE


def test_a_planned_failover_waits_for_the_primary_to_yield():
    world = up(failover="manual")
    began = world.now
    assert world.ask("s", "failover").body["state"] == "taking"
    world.until(world.s.could_write, 1.0)
    assert world.now - began < 0.3, "the writers say that they have stopped; nobody waits for permissions to run out"
    assert world.p.state == "fenced"


def test_a_planned_failover_while_a_writer_does_not_answer_waits_for_its_permission_to_end():
    world = up(failover="manual")
    world.freeze("p", "redire0")
    began = world.now
    world.ask("s", "failover")
    world.until(world.s.could_write, 5.0)
    assert world.now - began > 0.5
    world.freeze("p", "redire0", frozen=False)
    world.run(5.0)


def test_the_secondary_dies_and_a_new_one_is_brought_in():
    world = up()
    died = world.now
    world.kill("s")
    world.until(lambda: world.p.processes["comp0"].mode == Mode.BYPASS, DETECTION + 1.1)
    assert world.now - died < DETECTION + 1.1
    assert not world.ask("p", "resync").ok, "there is nobody"
    for one in world.s.processes.values():
        one.dead = False
    world.s.start_frame()
    world.run(5.0)
    assert (world.p.state, world.p.frame.side.modes.mode) == ("holding", Mode.BYPASS)
    assert not world.s.frame.side.ownership.leadership.promotable
    assert world.ask("p", "resync").ok
    world.run(3.0)
    assert world.p.processes["comp0"].mode == Mode.ENFORCE
    assert world.s.frame.side.ownership.leadership.promotable
    world.kill("p")
    world.until(world.s.could_write, DETECTION + 0.6)


def test_a_lost_secondary_that_is_back_is_taken_in_by_itself_where_that_is_requested():
    world = up(resync="auto")
    world.freeze("s")
    world.run(10.0)
    assert world.p.frame.side.modes.mode == Mode.BYPASS
    world.freeze("s", frozen=False)
    world.until(lambda: world.p.processes["comp0"].mode == Mode.ENFORCE, 5.0)


def test_without_a_secondary_everything_may_be_held_instead():
    world = up(on_loss="hold")
    world.kill("s")
    world.run(10.0)
    assert (world.p.state, world.p.frame.side.modes.mode) == ("alone", Mode.ENFORCE)


def test_a_frame_that_is_restarted_while_alone_goes_on_in_bypass():
    world = up()
    world.kill("s")
    world.run(10.0)
    world.p.start_frame()
    world.run(10.0)
    assert (world.p.state, world.p.frame.side.modes.mode) == ("alone", Mode.BYPASS)
    assert world.p.processes["comp0"].mode == Mode.BYPASS


def test_an_order_to_the_wrong_side_is_refused():
    world = up()
    assert "secondary" in world.ask("p", "failover").error
    assert "primary" in world.ask("s", "resync").error


def test_when_both_networks_were_cut_the_higher_fence_stays_once_they_meet():
    world = up()
    world.link = world.lan = False
    world.run(10.0)
    assert world.p.could_write()
    assert world.s.could_write(), "each has its own part of the LAN; no rule of two can tell this from a death"
    world.lan = True
    world.run(1.0)
    writers = [host.letter for host in world.hosts.values() if host.could_write()]
    assert len(writers) == 1
    world.run(20.0)
    assert [host.letter for host in world.hosts.values() if host.could_write()] == writers


@pytest.mark.slow
@given(SCRIPTS, FAILOVER)
@settings(max_examples=150, deadline=None)
def test_never_two_writers(script, failover):
    """`make ownership` runs more examples."""
    play(script, failover)


@pytest.mark.slow
@given(VOTE_SCRIPTS, FAILOVER)
@settings(max_examples=100, deadline=None)
def test_never_two_writers_with_a_third_vote(script, failover):
    play(script, failover, vote=True)
