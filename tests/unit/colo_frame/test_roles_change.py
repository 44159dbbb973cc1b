"""Roles change with the leadership: what each part of a frame forgets, keeps and learns, and who is told what."""

from dataclasses import replace

import pytest
from hypothesis import given, settings

from colo_frame.config import FrameConfig
from colo_frame.frame import Frame
from colo_proto.messages import (
    CheckpointWanted,
    Demote,
    Heartbeat,
    Mode,
    Promote,
    Query,
    Reason,
    SetMode,
    Welcome,
    WorkerTable,
)
from colo_proto.topology import Site, plan
from ownership_search import FAILOVER, play, scripts
from ownership_world import World

from .frames import answer, hello, told


def up(**options):
    world = World(roles="change", **options).run(3.0)
    assert (world.p.state, world.s.state) == ("holding", "standby")
    return world


def changed(**options):
    """The host secondary leads after a planned change."""
    world = up(**options)
    assert world.ask("s", "failover").ok
    return world.run(1.0)


def roles(world):
    return [(host.leads, host.could_write()) for host in world.hosts.values()]


def status(world, letter):
    return world.ask(letter, "status").body


def verdict(world, letter):
    said = status(world, letter)["verdict"]
    return said["level"], said["lan"], said["text"]


@pytest.mark.slow
@given(scripts(roles="change"), FAILOVER)
@settings(max_examples=100, deadline=None)
def test_never_two_writers(script, failover):
    """`make ownership` runs more examples."""
    play(script, failover, roles="change")


@pytest.mark.slow
@given(scripts(vote=True, roles="change"), FAILOVER)
@settings(max_examples=75, deadline=None)
def test_never_two_writers_with_a_third_vote(script, failover):
    play(script, failover, vote=True, roles="change")


def test_the_topology_says_that_roles_change():
    site = Site("/run/colo", "10.0.0.1", "10.0.0.2", {"lan": "lan0", "guest": "guest0"})
    for wiring, found in (("symmetric", "change"), ("faithful", None), ("lean", None)):
        for side in ("primary", "secondary"):
            frame = next(one for one in plan(side, wiring, 1, site) if one.role == "frame")
            assert frame.options.get("roles") == found


class TestProcesses:
    def test_the_processes_of_the_first_leader_are_told_that_it_leads(self):
        assert roles(up()) == [(True, True), (False, False)]

    def test_after_a_change_those_of_the_other_host_lead(self):
        assert roles(changed()) == [(False, False), (True, True)]

    @pytest.mark.parametrize("letter", "ps")
    def test_a_process_that_is_restarted_hears_the_role_in_the_answer_to_its_hello(self, letter):
        world = changed()
        one = world.hosts[letter].heartbeat
        one.promoted, one.fence, one.incarnation = False, 0, 2
        world.hosts[letter].hello(one)
        world.run(0.1)
        assert one.promoted == (letter == "s")

    def test_one_that_missed_the_end_is_told_when_it_says_hello(self):
        world = changed()
        one = world.p.heartbeat
        one.promoted, one.fence = True, 0
        world.p.hello(one)
        world.run(0.1)
        assert (one.promoted, world.p.state) == (False, "standby")

    def test_the_first_promotion_carries_the_token_of_the_start(self):
        config = FrameConfig(id="frame-p", roles="change", workers="comp0")
        frame = Frame(config, 1, 0.0)
        outputs = frame.hear("m0", hello("mirror", "m0"), 0.0)
        assert told(outputs, Promote, "m0") == [Promote(0, "primary")]
        assert told(outputs, Welcome, "m0")


class TestTable:
    def test_each_leader_makes_a_table_of_its_own_workers_with_a_version_above_all_seen(self):
        world = up()
        seen = []
        for letter in "sps":
            assert world.ask(letter, "failover").ok
            world.run(1.0)
            tables = [host.frame.side.table for host in world.hosts.values()]
            assert tables[0] == tables[1]
            seen.append((tables[0].version, tables[0].workers))
        assert seen == [(2, ["comp0-s"]), (3, ["comp0"]), (4, ["comp0-s"])]

    def test_a_leader_whose_workers_are_lost_waits_for_them(self):
        world = changed()
        world.freeze("p", "comp0")
        world.run(6.0)
        assert world.ask("p", "failover", force=True).ok
        world.run(3.0)
        assert world.p.frame.side.table == world.s.frame.side.table
        assert (world.p.frame.side.table.version, world.p.frame.side.table.workers) == (3, ["comp0"])

    def test_the_standby_shares_out_by_it_at_once(self):
        world = up()
        assert world.ask("s", "failover").ok
        world.run(0.1)
        assert world.p.state == "standby"
        assert world.p.frame.side.table.workers == ["comp0-s"]

    def test_a_leader_does_not_learn_the_workers_of_the_other_host(self):
        world = changed()
        frame = world.s.frame
        foreign = WorkerTable(9, ["comp0"], [0] * 1024)
        frame._scaling.learn(world.s.now, foreign.version, foreign)
        assert (frame.side.table.version, frame.side.table.workers) == (10, ["comp0-s"])

    def test_a_worker_that_joined_before_is_in_the_table_of_the_next_leader(self):
        config = FrameConfig(id="frame-s", side="secondary", roles="change", workers="comp0-s", peer="tcp://[::1]:9005")
        frame = Frame(config, 1, 0.0)
        for name in ("comp0-s", "comp1-s"):
            frame.hear(name, hello(name=name), 0.0)
        assert frame.side.table.version == 0
        frame._scaling.lead(0.0)
        assert frame.side.table.workers == ["comp0-s", "comp1-s"]

    def test_the_standby_makes_none_although_its_workers_come_and_go(self):
        world = changed()
        before = world.p.frame.side.table
        world.p.to_frame("comp1", hello(name="comp1"))
        world.run(3.0)
        assert world.p.frame.side.table == before

    def test_two_tables_never_have_the_same_version(self):
        """The leader's frame is restarted at once, before it knows which version it has told."""
        world = up()
        assert world.ask("s", "failover").ok
        world.run(0.03)
        world.s.start_frame()
        world.run(2.0)
        tables = [host.frame.side.table for host in world.hosts.values()]
        assert tables[0] == tables[1]
        assert (tables[0].version, tables[0].workers) == (2, ["comp0-s"])


class TestMode:
    def test_after_a_planned_change_the_pair_goes_on_comparing(self):
        world = changed()
        assert verdict(world, "s") == ("protected", "secondary", "protected")
        world.run(1.0)
        assert verdict(world, "p")[:2] == ("protected", "secondary")
        assert world.s.writer.mode == Mode.ENFORCE
        assert world.p.writer.mode == Mode.BYPASS, "they forget their connections, and hold nothing"

    def test_a_forced_change_needs_a_resync(self):
        world = up()
        assert world.ask("p", "mode", mode="bypass").ok
        world.run(1.0)
        assert not world.ask("s", "failover").ok
        assert world.ask("s", "failover", force=True).ok
        world.run(1.0)
        assert world.s.frame.side.modes.left_alone
        assert verdict(world, "p")[2] == "unprotected (mode bypass: the standby is back, colo resync is needed)"
        assert world.ask("s", "resync").ok
        world.run(6.0)
        assert verdict(world, "p")[2] == "protected"

    def test_an_unplanned_change_is_never_held(self):
        world = up(on_loss="hold")
        world.kill("p")
        world.until(world.s.could_write)
        assert world.s.writer.mode == Mode.BYPASS

    def test_the_frame_of_a_leader_that_is_restarted_goes_on_as_before(self):
        world = changed()
        world.s.start_frame()
        world.run(3.0)
        assert verdict(world, "p")[:2] == ("protected", "secondary")
        assert world.s.frame.side.counters["mode_changes"] == 0


class TestCheckpoints:
    def wanted(self, world):
        return [one for who, one in world.link_tape if who == "p" and isinstance(one, CheckpointWanted)]

    def test_requests_go_to_the_host_that_leads(self):
        world = changed()
        epoch = world.s.frame.side.checkpoints.epoch
        world.p.to_frame("m0", CheckpointWanted(Reason.MIRROR_GAP, source="m0"))
        world.run(2.0)
        assert self.wanted(world)
        assert [host.frame.side.checkpoints.epoch for host in world.hosts.values()] == [epoch + 1] * 2

    def test_what_was_wanted_in_the_former_role_is_forgotten(self):
        world = up()
        side = world.p.frame.side
        side.checkpoints.want(CheckpointWanted(Reason.MIRROR_GAP), "m0", False, world.p.now + 60.0)
        assert side.checkpoints.deadline() is not None
        assert world.ask("s", "failover").ok
        world.run(1.0)
        assert side.checkpoints.deadline() is None
        assert not side.checkpoints.status(world.p.now)["pending"]

    def test_epochs_go_on(self):
        world = up()
        assert world.ask("p", "checkpoint").ok
        world.run(2.0)
        assert world.ask("s", "failover").ok
        world.run(1.0)
        assert world.ask("p", "checkpoint").ok
        world.run(2.0)
        assert [host.frame.side.checkpoints.epoch for host in world.hosts.values()] == [2, 2]


class TestOrders:
    @pytest.mark.parametrize(
        ("what", "args", "error"),
        [
            ("failover", {}, "a failover is ordered at the standby's frame; this host leads (holding)"),
            ("failover", {"force": True}, "a failover is ordered at the standby's frame; this host leads (holding)"),
        ],
    )
    def test_the_leader_refuses(self, what, args, error):
        assert changed().ask("s", what, **args).error == error

    @pytest.mark.parametrize(
        ("what", "args", "error"),
        [
            ("resync", {}, "a resync is ordered at the leader's frame"),
            ("mode", {"mode": "bypass"}, "the mode is set at the leader's frame"),
            ("rules", {"rules": ""}, "rules are set at the leader's frame"),
        ],
    )
    def test_the_standby_refuses(self, what, args, error):
        assert changed().ask("p", what, **args).error == error

    def test_a_host_that_never_heard_the_other_one_is_no_replica(self):
        frame = Frame(FrameConfig(side="secondary", roles="change", peer="tcp://[::1]:9005"), 1, 0.0)
        assert "no leader was ever heard" in answer(frame, Query("failover")).error


class TestStatus:
    def test_both_hosts_say_who_leads(self):
        world = changed()
        seen = {letter: status(world, letter) for letter in "ps"}
        assert {letter: one["leadership"]["role"] for letter, one in seen.items()} == {"p": "standby", "s": "leader"}
        assert {one["leadership"]["takeover"]["side"] for one in seen.values()} == {"secondary"}
        assert seen["p"]["leadership"]["promotable"] is True
        assert "promotable" not in seen["s"]["leadership"]

    def test_a_chain_that_is_broken_is_named_by_role(self):
        world = changed()
        world.kill("p", "comp0")
        world.run(8.0)
        level, _, text = verdict(world, "s")
        assert (level, text.startswith("unprotected (the standby's chain is broken: comp0 silent")) == (
            "unprotected",
            True,
        )

    def test_fixed_roles_have_none(self):
        world = World().run(3.0)
        assert "role" not in status(world, "p")["leadership"]


def test_a_heartbeat_of_the_other_leader_changes_no_table_of_this_one():
    """Both lead for a moment when two networks were cut and meet again."""
    world = up()
    beat = next(one for who, one in reversed(world.link_tape) if who == "s" and isinstance(one, Heartbeat))
    table = {"version": 7, "workers": ["comp0-s"], "slots": [0] * 1024}
    world.p.to_frame("peer", replace(beat, table=table))
    world.run(0.1)
    assert (world.p.frame.side.table.version, world.p.frame.side.table.workers) == (8, ["comp0"])


def test_a_demotion_is_said_again_with_each_higher_token():
    world = changed()
    said = []
    take = world.p.take
    world.p.take = lambda outputs: (said.extend(told(outputs, Demote)), take(outputs))
    world.link = False
    world.run(6.0)
    assert [one.fence for one in said] == [3], "the leader took another token when it went on alone"


def test_compares_hear_the_mode_of_their_new_role():
    world = up()
    said = []
    take = world.s.take
    world.s.take = lambda outputs: (said.extend(told(outputs, SetMode, "comp0-s")), take(outputs))
    assert world.ask("s", "failover").ok
    world.run(1.0)
    assert [one.mode for one in said] == [Mode.ENFORCE]
