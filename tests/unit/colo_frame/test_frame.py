"""The frame core, driven by hand-fed messages and clock; two of them joined make a pair."""

import pytest

from colo_frame.config import FrameConfig
from colo_frame.drivers import Step, Verdict
from colo_frame.frame import EVERYBODY, PEER, Frame
from colo_frame.table import make_table, read_table
from colo_frame.workers import SETTLE
from colo_proto.codec import decode, encode
from colo_proto.core import Log, Tell
from colo_proto.messages import (
    Answer,
    CheckpointDone,
    CheckpointWanted,
    Drain,
    Flushed,
    Handover,
    HandoverTaken,
    Heartbeat,
    Hello,
    Leaving,
    Query,
    Reason,
    Report,
    SetMode,
    SetRules,
    Settled,
    Welcome,
    WorkerTable,
)

PRIMARY = FrameConfig(id="frame-p", side="primary", peer="tcp://192.0.2.2:9005", workers="comp0")
SECONDARY = FrameConfig(id="frame-s", side="secondary", peer="tcp://192.0.2.1:9005")


def hello(role="compare", name="comp0", incarnation=1):
    return Hello(role, name, incarnation, pid=42)


def report(role="compare", name="comp0", **more):
    return Report(role, name, 1, more.pop("counters", {}), more.pop("gauges", {}), **more)


def wish(reason=Reason.PAYLOAD, epoch=0, source="comp0"):
    return CheckpointWanted(reason, "tcp 10.0.0.2:80 > 10.0.0.9:5000", 17, {"primary": "41"}, epoch, source)


def told(outputs, kind, to=None):
    return [o.message for o in outputs if isinstance(o, Tell) and isinstance(o.message, kind) and to in (None, o.to)]


def events(outputs):
    return [o.event for o in outputs if isinstance(o, Log)]


def answer(f, query, now=0.0):
    (one,) = told(f.hear("cli", query, now), Answer, "cli")
    return one


def primary(now=0.0, **more):
    f = Frame(FrameConfig(**{"id": "frame-p", "peer": "tcp://192.0.2.2:9005", "workers": "comp0", **more}), 1, now)
    f.hear("comp0", hello(), now)
    return f


def idle(f, until):
    """Let time pass as it does in a process that runs; what the timers bring."""
    outputs = []
    while (due := f.deadline()) < until:
        outputs += f.on_timer(due)
    return outputs + f.on_timer(until)


class Copying:
    """A driver that copies state at once."""

    name = "copying"
    copies_state = True

    def start(self, epoch, now):
        return Step([], Verdict(ok=True, state_copied=True))

    def hear(self, message, now):
        return Step([])

    def deadline(self):
        return None

    def on_timer(self, now):
        return Step([])


# -- joining -----------------------------------------------------------------------------------------


def test_hello_is_welcomed_with_epoch_mode_and_incarnation():
    f = Frame(PRIMARY, 77)
    outputs = f.hear("comp0", hello(), 1.0)
    assert told(outputs, Welcome, "comp0") == [Welcome(0, "enforce", 77)]
    assert events(outputs) == ["process.joined"]
    assert events(f.hear("comp0", hello(), 2.0)) == []


def test_splitters_and_compares_get_the_table_with_their_welcome():
    f = Frame(PRIMARY, 1)
    for role, count in (("redirector", 1), ("rewriter", 1), ("mirror", 0), ("compare", 1)):
        assert len(told(f.hear(f"{role}x", hello(role, f"{role}x"), 0.0), WorkerTable, f"{role}x")) == count


def test_an_unknown_sender_is_welcomed_so_that_it_says_hello():
    f = Frame(PRIMARY, 5)
    outputs = f.hear("comp0", report(), 0.0)
    assert told(outputs, Welcome, "comp0") == [Welcome(0, "enforce", 5)]
    assert f.counters["unknown_senders"] == 1
    assert answer(f, Query("status")).body["processes"] == []


def test_a_wish_of_an_unknown_compare_still_counts():
    f = Frame(PRIMARY, 5)
    outputs = f.hear("comp0", wish(epoch=9), 0.0)
    assert told(outputs, CheckpointDone, EVERYBODY) == [CheckpointDone(10, state_copied=False)]


def test_messages_that_are_not_for_a_frame_are_counted():
    f = primary()
    f.hear("comp0", Drain(), 0.0)
    f.hear(PEER, Drain(), 0.0)
    f.hear(PEER, CheckpointDone(4, state_copied=True), 0.0)
    assert f.counters["ignored_messages"] == 3
    assert f.checkpoints.epoch == 0


def test_a_silent_process_is_lost_and_found_by_hello():
    f = primary()
    f.hear("m0", hello("mirror", "m0"), 0.0)
    idle(f, 4.0)
    f.hear("comp0", report(), 4.0)
    outputs = idle(f, 5.0)
    assert "process.lost" in events(outputs)
    states = {p["id"]: p["state"] for p in f.status(5.0)["processes"]}
    assert states == {"comp0": "live", "m0": "lost"}
    assert f.counters["processes_lost"] == 1
    assert "process.joined" in events(f.hear("m0", hello("mirror", "m0"), 6.1))
    assert f.gauges()["processes_silent"] == 0


def test_a_process_that_was_paused_returns_with_its_next_report():
    f = primary(workers="comp0,comp1")
    f.hear("comp1", hello(name="comp1"), 0.0)
    idle(f, 4.0)
    f.hear("comp0", report(), 4.0)
    idle(f, 5.0)
    f.hear("comp0", Flushed(1, "comp0"), 5.1)
    assert f.table.workers == ["comp0"]
    f.hear(PEER, Heartbeat("secondary", 7, 1, 0), 5.9)
    outputs = f.hear("comp1", report(name="comp1", gauges={"linked": 1}), 6.0)
    assert "process.returned" in events(outputs)
    (table,) = told(outputs, WorkerTable, EVERYBODY)
    assert (table.version, table.workers, table.givers) == (3, ["comp0", "comp1"], ["comp0"])


# -- checkpoints -------------------------------------------------------------------------------------


def test_from_wish_to_flushed():
    f = primary()
    outputs = f.hear("comp0", wish(), 1.0)
    done = [o for o in outputs if isinstance(o, Tell) and isinstance(o.message, CheckpointDone)]
    assert [(o.to, o.message.epoch) for o in done] == [(PEER, 1), (EVERYBODY, 1)]
    outputs = f.hear("comp0", Flushed(1, "comp0", 5, 6), 1.1)
    assert events(outputs) == ["checkpoint.completed"]
    assert f.counters["checkpoints_done"] == 1
    assert f.status(1.1)["checkpoint"]["wanted"][0]["flow"] == "tcp 10.0.0.2:80 > 10.0.0.9:5000"


def test_many_wishes_one_checkpoint():
    f = primary(workers="comp0,comp1")
    f.hear("comp1", hello(name="comp1"), 0.0)
    outputs = []
    for number in range(100):
        outputs += f.hear(f"comp{number % 2}", wish(source=f"comp{number % 2}"), 1.0)
    assert len(told(outputs, CheckpointDone, EVERYBODY)) == 1
    assert f.counters["checkpoints_coalesced"] == 99


def test_a_lost_worker_does_not_hold_a_checkpoint_up():
    f = primary(workers="comp0,comp1", flush_timeout=60000)
    f.hear("comp1", hello(name="comp1"), 0.0)
    idle(f, 4.5)
    f.hear("comp0", wish(), 4.5)
    f.hear("comp0", Flushed(1, "comp0"), 4.6)
    assert f.counters["checkpoints_done"] == 0
    idle(f, 5.0)
    assert f.counters["checkpoints_done"] == 1


def test_the_flush_timeout_is_a_deadline():
    f = primary(heartbeat_interval=60000)
    f.on_timer(0.0)
    f.hear("comp0", wish(), 1.0)
    assert f.deadline() == 3.0
    outputs = f.on_timer(3.0)
    assert "checkpoint.completed" in events(outputs)
    assert f.counters["flush_timeouts"] == 1


def test_a_mirror_gap_is_never_taken_for_covered():
    f = primary()
    f.hear("comp0", wish(), 1.0)
    f.hear("comp0", Flushed(1, "comp0"), 1.1)
    f.hear("redire1", hello("redirector", "redire1"), 1.2)
    outputs = f.hear("redire1", wish(Reason.MIRROR_GAP, epoch=0, source="redire1"), 1.3)
    assert not told(outputs, CheckpointDone), "the interval since the last one is not over"
    outputs = idle(f, 2.1)
    assert told(outputs, CheckpointDone, EVERYBODY) == [CheckpointDone(2, state_copied=False)]


def test_a_demanded_checkpoint():
    f = primary()
    outputs = f.hear("cli", Query("checkpoint"), 1.0)
    assert told(outputs, Answer, "cli")[0].ok
    assert told(outputs, CheckpointDone, EVERYBODY) == [CheckpointDone(1, state_copied=False)]
    assert f.counters["checkpoints_wanted.request"] == 1


def test_checkpoint_interval():
    f = primary(checkpoint_interval=10000)
    f.hear("comp0", wish(), 1.0)
    f.hear("comp0", Flushed(1, "comp0"), 1.0)
    assert not told(f.hear("comp0", wish(epoch=1), 2.0), CheckpointDone)
    f.hear("comp0", report(), 10.0)
    assert told(f.on_timer(11.0), CheckpointDone, EVERYBODY) == [CheckpointDone(2, state_copied=False)]


# -- modes and questions -----------------------------------------------------------------------------


def test_a_mode_reaches_every_compare_and_later_ones():
    f = primary()
    f.hear("m0", hello("mirror", "m0"), 0.0)
    outputs = f.hear("cli", Query("mode", {"mode": "shadow"}), 1.0)
    assert [(o.to, o.message.mode) for o in outputs if isinstance(o, Tell) and isinstance(o.message, SetMode)] == [
        ("comp0", "shadow")
    ]
    assert told(outputs, Answer, "cli") == [Answer(ok=True, body={"mode": "shadow"})]
    assert told(f.hear("comp1", hello(name="comp1"), 2.0), Welcome, "comp1")[0].mode == "shadow"
    assert answer(f, Query("mode")).body == {"mode": "shadow"}


@pytest.mark.parametrize("mode", ["off", 3, ["enforce"]])
def test_a_mode_that_does_not_exist_is_refused(mode):
    f = primary()
    refused = answer(f, Query("mode", {"mode": mode}))
    assert not refused.ok
    assert "enforce, shadow, bypass" in refused.error
    assert f.mode == "enforce"


def test_an_unknown_query_is_refused():
    refused = answer(primary(), Query("x" * 1000))
    assert not refused.ok
    assert "known: status, checkpoint, mode" in refused.error
    assert len(refused.error) < 120


def test_status_has_everything_and_fits_a_message():
    f = primary()
    f.hear("comp0", report(counters={"released": 4}, gauges={"held": 2}, status={"mode": "enforce"}), 1.0)
    f.hear("comp0", wish(), 1.5)
    reply = answer(f, Query("status"), 2.0)
    assert decode(encode(reply)) == reply
    body = reply.body
    assert (body["epoch"], body["mode"], body["side"], body["incarnation"]) == (1, "enforce", "primary", 1)
    assert body["table"] == {"version": 1, "workers": {"comp0": 1024}, "unsettled": [], "leaving": []}
    assert body["peer"] == {"alive": False, "state": "never seen"}
    (process,) = body["processes"]
    assert process["counters"] == {"released": 4}
    assert process["report_age_ms"] == 1000
    assert process["age_ms"] == 500
    assert body["checkpoint"]["wanted"][0]["detail"] == {"primary": "41"}


def test_an_anonymous_client_may_ask_but_is_not_written_down():
    f = primary()
    name = b"\x00k\x8bE\xff".decode(errors="surrogateescape")
    assert told(f.hear(name, Query("checkpoint"), 1.0), Answer, name)[0].ok
    for message in (hello(), report(), wish(), Flushed(1, "comp0")):
        f.hear(name, message, 1.0)
    (reply,) = told(f.hear(name, Query("status"), 1.0), Answer, name)
    assert decode(encode(reply)) == reply
    assert reply.body["checkpoint"]["wanted"][0]["source"] == "anonymous"
    assert f.counters["ignored_messages"] == 4


# -- workers -----------------------------------------------------------------------------------------


def test_without_named_workers_the_first_table_comes_after_a_moment():
    f = primary(workers="")
    f.hear("redire1", hello("redirector", "redire1"), 0.0)
    f.on_timer(0.0)
    f.hear("comp1", hello(name="comp1"), 0.1)
    outputs = idle(f, SETTLE - 0.01)
    assert not told(outputs, WorkerTable)
    assert f.deadline() == SETTLE
    outputs = f.on_timer(SETTLE)
    assert told(outputs, WorkerTable, EVERYBODY) == [make_table(1, ["comp0", "comp1"])]
    assert told(outputs, Heartbeat, PEER)[0].table["version"] == 1
    assert f.counters["checkpoints_started"] == 0


def linked(name):
    return report(name=name, gauges={"linked": 1})


def scaled(peer=True):
    """Two workers of which the second has just joined."""
    f = primary(workers="")
    f.on_timer(SETTLE)
    if peer:
        f.hear(PEER, Heartbeat("secondary", 7, 1, 0), 0.9)
    f.hear("comp1", hello(name="comp1"), 1.0)
    assert f.table.version == 1, "nobody can reach it yet"
    return f, f.hear("comp1", linked("comp1"), 1.1)


def test_a_worker_that_joins_gets_its_share_without_a_checkpoint():
    f, outputs = scaled()
    assert not told(outputs, CheckpointDone)
    (table,) = told(outputs, WorkerTable, EVERYBODY)
    assert (table.version, table.workers, table.givers) == (2, ["comp0", "comp1"], ["comp0"])
    assert table.slots == make_table(2, ["comp0", "comp1"]).slots
    (beat,) = told(outputs, Heartbeat, PEER)
    assert read_table(beat.table).slots == table.slots, "the other host shares out by it as well"
    assert f.status(1.1)["table"]["unsettled"] == ["comp0", "comp1"]
    f.hear("comp0", Settled("comp0", 2), 1.2)
    f.hear("comp1", Settled("comp1", 2), 1.2)
    assert f.status(1.2)["table"]["unsettled"] == []


def test_no_flows_move_while_the_other_host_cannot_be_told():
    f, outputs = scaled(peer=False)
    assert not told(outputs, WorkerTable)
    f.hear(PEER, Heartbeat("secondary", 7, 1, 0), 2.0)
    assert told(f.hear("comp1", linked("comp1"), 2.1), WorkerTable, EVERYBODY)


def test_but_where_nothing_is_compared_they_do():
    f, outputs = scaled(peer=False)
    assert not told(outputs, WorkerTable)
    assert answer(f, Query("mode", {"mode": "bypass"}), 2.0).ok
    assert told(f.hear("comp1", linked("comp1"), 2.1), WorkerTable, EVERYBODY)


def test_compares_talk_to_each_other_through_the_frame():
    f, _ = scaled()
    part = Handover(2, "comp0", "comp1", 0, last=True, data=b"x")
    assert told(f.hear("comp0", part, 1.2), Handover) == [part]
    assert told(f.hear("comp0", part, 1.2), Handover, "comp1")
    assert not told(f.hear("comp1", part, 1.2), Handover), "in somebody else's name"
    taken = HandoverTaken(2, "comp0", "comp1", 0)
    assert told(f.hear("comp1", taken, 1.3), HandoverTaken, "comp0") == [taken]


def test_who_wants_to_leave_may_when_its_flows_are_elsewhere():
    f, _ = scaled()
    for name in ("comp0", "comp1"):
        f.hear(name, Settled(name, 2), 1.2)
    outputs = f.hear("comp1", Leaving("comp1"), 2.0)
    (table,) = told(outputs, WorkerTable, EVERYBODY)
    assert (table.workers, table.givers) == (["comp0"], ["comp1"])
    assert not told(outputs, Drain)
    assert not told(f.hear("comp0", Settled("comp0", 3), 2.1), Drain)
    assert told(f.hear("comp1", Settled("comp1", 3), 2.2), Drain, "comp1")
    assert f.table.workers == ["comp0"]
    assert not told(f.hear("comp1", linked("comp1"), 2.3), WorkerTable), "it does not join again"
    f.hear("comp1", hello(name="comp1", incarnation=2), 9.0)
    assert told(f.hear("comp1", linked("comp1"), 9.1), WorkerTable, EVERYBODY), "but a new start of it does"


def test_the_last_worker_is_not_kept():
    f = primary()
    assert told(f.hear("comp0", Leaving("comp0"), 1.0), Drain, "comp0")
    assert f.table.workers == ["comp0"]


def test_a_giver_that_is_restarted_has_nothing_to_give():
    f, _ = scaled()
    outputs = f.hear("comp0", hello(incarnation=2), 1.2)
    (table,) = told(outputs, WorkerTable, "comp1")
    assert (table.version, table.givers) == (2, [])


def test_who_has_not_settled_is_told_again():
    f, _ = scaled()
    f.hear("comp0", Settled("comp0", 2), 1.2)
    assert told(f.on_timer(2.2), WorkerTable, "comp1")
    assert not told(f.on_timer(2.2), WorkerTable, "comp0")


def test_a_lost_workers_slots_move_behind_a_checkpoint():
    f = primary(workers="comp0,comp1")
    f.hear("comp1", hello(name="comp1"), 0.0)
    idle(f, 3.0)
    f.hear("comp0", report(), 3.0)
    outputs = idle(f, 5.0)
    assert told(outputs, CheckpointDone, EVERYBODY)
    assert f.counters["checkpoints_wanted.worker_lost"] == 1
    outputs = f.hear("comp0", Flushed(1, "comp0"), 5.1)
    assert told(outputs, WorkerTable, EVERYBODY) == [make_table(2, ["comp0"])]


def test_the_last_worker_keeps_its_slots_while_it_is_away():
    f = primary()
    f.on_timer(5.0)
    assert f.table == make_table(1, ["comp0"])
    f.hear("comp0", hello(incarnation=2), 6.0)
    assert f.table.version == 1


def test_a_failed_checkpoint_is_tried_again_for_the_sake_of_the_table():
    f = primary(workers="comp0,comp1")
    f.hear("comp1", hello(name="comp1"), 0.0)

    class Failing(Copying):
        def start(self, epoch, now):
            return Step([], Verdict(ok=False, state_copied=False, error="no"))

    f.checkpoints.driver = Failing()
    idle(f, 4.0)
    f.hear("comp0", report(), 4.0)
    idle(f, 5.0)
    assert f.counters["checkpoints_failed"] == 1
    f.checkpoints.driver = Copying()
    f.hear("comp0", report(), 6.9)
    idle(f, 7.0)
    outputs = f.hear("comp0", Flushed(1, "comp0"), 7.1)
    assert told(outputs, WorkerTable, EVERYBODY) == [make_table(2, ["comp0"])]


def test_a_restarted_frame_learns_the_workers_from_whoever_shares_out_to_them():
    f = primary()
    status = {"workers": ["comp0", "comp1", "comp2"]}
    f.hear("f2", hello("redirector", "redire1"), 1.0)
    f.hear("f2", report("redirector", "redire1", gauges={"table_version": 7}, status=status), 1.1)
    assert f.table == make_table(7, status["workers"])


def test_a_restarted_worker_costs_a_checkpoint_only_where_state_is_copied():
    f = primary()
    assert not told(f.hear("comp0", hello(incarnation=2), 1.0), CheckpointDone)
    assert f.counters["workers_restarted"] == 1
    g = Frame(PRIMARY, 1, driver=Copying())
    g.hear("comp0", hello(), 0.0)
    assert told(g.hear("comp0", hello(incarnation=2), 1.0), CheckpointDone, EVERYBODY) == [
        CheckpointDone(1, state_copied=True)
    ]


def test_a_restarted_mirror_costs_a_checkpoint():
    """Its receiver may have died with it, and then nobody else knows that frames are missing."""
    f = primary()
    f.hear("m0", hello("mirror", "m0", incarnation=1), 1.0)
    assert f.counters["checkpoints_wanted.mirror_gap"] == 0
    outputs = f.hear("m0", hello("mirror", "m0", incarnation=2), 2.0)
    assert f.counters["checkpoints_wanted.mirror_gap"] == 1
    assert told(outputs, CheckpointDone)


@pytest.mark.parametrize("mirror_first", [True, False])
def test_a_mirror_restarted_while_the_frame_was_dead_costs_a_checkpoint(mirror_first):
    """Its receiver may have died with it; the others know an earlier start of this frame, and the mirror knows none."""
    f = Frame(PRIMARY, 7, 0.0)
    known, new = Hello("redirector", "redire1", 1, frame=5), Hello("mirror", "m0", 2)
    for sender, message in (("m0", new), ("redire1", known))[:: 1 if mirror_first else -1]:
        assert not f.counters["checkpoints_wanted.mirror_gap"]
        f.hear(sender, message, 0.1)
    assert f.counters["checkpoints_wanted.mirror_gap"] == 1
    f.hear("m0", Hello("mirror", "m0", 2, frame=7), 0.2)
    assert f.counters["checkpoints_wanted.mirror_gap"] == 1


def test_a_mirror_that_the_frame_before_knew_has_lost_nothing():
    f = Frame(PRIMARY, 7, 0.0)
    f.hear("redire1", Hello("redirector", "redire1", 1, frame=5), 0.1)
    f.hear("m0", Hello("mirror", "m0", 1, frame=5), 0.1)
    assert not f.counters["checkpoints_wanted.mirror_gap"]


def test_when_everything_starts_no_mirror_has_lost_anything():
    f = Frame(PRIMARY, 7, 0.0)
    f.hear("m0", Hello("mirror", "m0", 1), 0.1)
    f.hear("redire1", Hello("redirector", "redire1", 1), 0.1)
    f.hear("redire1", Hello("redirector", "redire1", 1, frame=7), 9.0)
    assert not f.counters["checkpoints_wanted.mirror_gap"]


def test_a_restarted_frame_goes_on_with_the_table_and_epoch_that_are_in_use():
    f = Frame(FrameConfig(peer="tcp://192.0.2.2:9005"), 2)
    f.hear("comp0", hello(), 0.0)
    table = make_table(6, ["comp0", "comp1"])
    beat = Heartbeat("secondary", 9, 1, epoch=31, table={"version": 6, "workers": table.workers, "slots": table.slots})
    outputs = f.hear(PEER, beat, 0.1)
    assert told(outputs, WorkerTable, EVERYBODY) == [table]
    f.hear("comp1", hello(name="comp1"), 0.2)
    f.on_timer(1.0)
    assert (f.table, f.checkpoints.epoch, f.counters["checkpoints_started"]) == (table, 31, 0)


def test_a_restarted_frame_with_named_workers_outnumbers_what_splitters_hold():
    f = Frame(PRIMARY, 2)
    f.hear("redire1", hello("redirector", "redire1"), 0.0)
    outputs = f.hear("redire1", report("redirector", "redire1", gauges={"table_version": 8}), 0.1)
    assert told(outputs, WorkerTable, EVERYBODY) == [make_table(9, ["comp0"])]


def test_compares_report_teaches_a_restarted_frame_the_epoch():
    f = primary()
    f.hear("comp0", report(gauges={"epoch": 12}), 1.0)
    assert told(f.hear("comp1", hello(name="comp1"), 1.1), Welcome, "comp1")[0].epoch == 12


# -- the pair ----------------------------------------------------------------------------------------


class Pair:
    """Two frames whose peer link carries every message at once, through its bytes, unless it is cut."""

    def __init__(self):
        self.now = 0.0
        self.p = Frame(PRIMARY, 1)
        self.s = Frame(SECONDARY, 2)
        self.cut = False
        self.heard = {"p": [], "s": []}
        self.hear("p", "comp0", hello())
        self.hear("s", "rew0", hello("rewriter", "rew0"))
        self.run(0.0)

    def other(self, side):
        return "s" if side == "p" else "p"

    def take(self, side, outputs):
        self.heard[side] += outputs
        for output in outputs:
            if isinstance(output, Tell) and output.to == PEER and not self.cut:
                far = self.other(side)
                self.take(far, getattr(self, far).hear(PEER, decode(encode(output.message)), self.now))

    def hear(self, side, sender, message):
        before = len(self.heard[side])
        self.take(side, getattr(self, side).hear(sender, message, self.now))
        return self.heard[side][before:]

    def run(self, until):
        """Step the clock to `until`, firing every timer on the way; processes report once a second."""
        before = {side: len(self.heard[side]) for side in "ps"}
        while True:
            side = min("ps", key=lambda s: getattr(self, s).deadline())
            due = getattr(self, side).deadline()
            if due > until:
                break
            self.now = max(due, self.now)
            self.hear("p", "comp0", report())
            self.hear("s", "rew0", report("rewriter", "rew0"))
            self.take(side, getattr(self, side).on_timer(self.now))
        self.now = until
        return {side: self.heard[side][before[side] :] for side in "ps"}


def test_both_sides_see_each_other():
    pair = Pair()
    pair.run(2.0)
    for f, role in ((pair.p, "secondary"), (pair.s, "primary")):
        status = f.status(pair.now)["peer"]
        assert status["alive"]
        assert status["role"] == role
        assert status["age_ms"] <= 500
        assert status["peer_processes"] == 1
        assert f.gauges()["peer_alive"] == 1
    # Four or five, and a few at once while they get to know each other.
    assert pair.p.counters["heartbeats_sent"] in range(4, 9)


def test_a_silent_peer_is_lost_after_the_missed_heartbeats_and_found_again():
    pair = Pair()
    pair.run(1.0)
    pair.cut = True
    seen = pair.run(3.4)
    assert "peer.lost" not in events(seen["p"])
    seen = pair.run(3.6)
    assert events(seen["p"]).count("peer.lost") == 1
    assert pair.p.status(pair.now)["peer"]["state"] == "lost"
    assert pair.s.counters["peer_lost"] == 1
    pair.cut = False
    seen = pair.run(4.2)
    assert "peer.found" in events(seen["p"])
    assert pair.p.status(pair.now)["peer"]["state"] == "alive"


def test_a_checkpoint_reaches_the_secondarys_processes_first():
    pair = Pair()
    outputs = pair.hear("p", "comp0", wish())
    assert [o.to for o in outputs if isinstance(o, Tell) and isinstance(o.message, CheckpointDone)] == [PEER, EVERYBODY]
    assert told(pair.heard["s"], CheckpointDone, EVERYBODY) == [CheckpointDone(1, state_copied=False)]
    assert pair.s.checkpoints.epoch == 1


def test_a_gap_on_the_secondary_becomes_a_checkpoint_of_the_pair():
    pair = Pair()
    pair.hear("s", "rew0", wish(Reason.MIRROR_GAP, source=""))
    assert pair.p.counters["checkpoints_wanted.mirror_gap"] == 1
    assert pair.p.status(0.0)["checkpoint"]["wanted"][0]["source"] == "rew0"
    assert told(pair.heard["s"], CheckpointDone, EVERYBODY) == [CheckpointDone(1, state_copied=False)]


def test_a_gap_while_the_link_is_cut_is_told_when_it_is_back():
    pair = Pair()
    pair.cut = True
    pair.run(5.0)
    assert not told(pair.hear("s", "rew0", wish(Reason.MIRROR_GAP, source="rew0")), CheckpointWanted)
    pair.run(9.0)
    assert pair.p.checkpoints.epoch == 0
    pair.cut = False
    pair.run(10.0)
    assert pair.p.counters["checkpoints_wanted.mirror_gap"] == 1
    pair.run(20.0)
    assert pair.p.counters["checkpoints_wanted.mirror_gap"] == 1


def test_a_checkpoint_that_the_secondary_missed_is_made_up_for():
    pair = Pair()
    pair.p.checkpoints.driver = Copying()
    pair.cut = True
    pair.hear("p", "comp0", wish())
    pair.hear("p", "comp0", Flushed(1, "comp0"))
    assert pair.s.checkpoints.epoch == 0
    pair.cut = False
    seen = pair.run(1.0)
    assert told(seen["s"], CheckpointDone, EVERYBODY) == [CheckpointDone(1, state_copied=True)]
    assert pair.s.counters["checkpoints_caught_up"] == 1


def test_the_secondary_repeats_the_primarys_table_to_its_splitters():
    pair = Pair()
    assert pair.s.table == make_table(1, ["comp0"])
    outputs = pair.hear("s", "f2", hello("redirector", "f2"))
    assert told(outputs, WorkerTable, "f2") == [make_table(1, ["comp0"])]


def test_a_restarted_primary_frame_is_noticed_and_its_table_is_taken():
    pair = Pair()
    pair.p = Frame(PRIMARY, 11, pair.now)
    pair.hear("p", "comp0", hello())
    pair.hear("p", "comp1", hello(name="comp1"))
    pair.run(1.0)
    assert "peer.restarted" in events(pair.heard["s"])
    assert pair.s.counters["peer_restarts"] == 1
    assert pair.s.table == pair.p.table


def test_the_primarys_mode_is_known_on_the_secondary():
    pair = Pair()
    pair.hear("p", "cli", Query("mode", {"mode": "bypass"}))
    assert pair.s.mode == "bypass"
    refused = told(pair.hear("s", "cli", Query("mode", {"mode": "enforce"})), Answer, "cli")[0]
    assert not refused.ok
    assert pair.p.mode == "bypass"


def test_a_checkpoint_can_be_demanded_on_the_secondary_while_the_primary_answers():
    pair = Pair()
    assert told(pair.hear("s", "cli", Query("checkpoint")), Answer, "cli")[0].ok
    assert pair.p.checkpoints.epoch == 1
    pair.cut = True
    pair.run(5.0)
    assert not told(pair.hear("s", "cli", Query("checkpoint")), Answer, "cli")[0].ok


def test_two_frames_of_one_side_are_an_error_and_do_not_follow_each_other():
    f = Frame(SECONDARY, 1)
    outputs = f.hear(PEER, Heartbeat("secondary", 2, 1, epoch=9, mode="bypass"), 0.0)
    assert "peer.conflicted" in events(outputs)
    assert (f.checkpoints.epoch, f.mode) == (0, "enforce")


def test_a_fencing_token_is_remembered_and_passed_on():
    pair = Pair()
    pair.run(1.0)
    pair.p.ownership.tenure.fence = 4
    pair.run(2.0)
    assert (pair.p.fence, pair.s.fence) == (4, 4)


def test_what_a_heartbeat_says_without_a_seal_is_for_people():
    """Who may write follows from the claim in it alone."""
    pair = Pair()
    pair.run(1.0)
    pair.hear("s", PEER, Heartbeat("primary", 1, 99, 0, fence=4, state="alone"))
    assert pair.s.fence == 0
    assert pair.s.status(pair.now)["peer"]["fence"] == 4
    assert pair.s.counters["claims_refused"] == 1


def test_garbage_in_a_heartbeat_is_not_taken():
    f = Frame(SECONDARY, 1)
    beat = Heartbeat("primary", 2, 1, epoch=3, mode="dance", table={"version": 1}, body={"copied_epoch": "all"})
    outputs = f.hear(PEER, beat, 0.0)
    assert told(outputs, CheckpointDone, EVERYBODY) == [CheckpointDone(3, state_copied=False)]
    assert (f.mode, f.table.version) == ("enforce", 0)


def test_without_a_peer_no_heartbeat_is_sent():
    f = Frame(FrameConfig(side="secondary"), 1)
    assert told(f.on_timer(0.0), Heartbeat) == []
    assert f.deadline() > 0.0
    assert f.drain(1.0) == []


class TestRules:
    TEXT = "pass tcp guest-port 3389\n"

    def ask(self, f, **args):
        outputs = f.hear("cli", Query("rules", args), 1.0)
        (answered,) = told(outputs, Answer, "cli")
        return answered, outputs

    def test_set_by_a_question_they_go_to_every_compare(self):
        f = primary()
        f.hear("comp1", hello(name="comp1"), 0.5)
        answered, outputs = self.ask(f, rules=self.TEXT)
        assert answered.ok
        assert told(outputs, SetRules, "comp0") == told(outputs, SetRules, "comp1") == [SetRules(self.TEXT)]
        assert self.ask(f)[0].body == {"rules": self.TEXT}
        assert f.status(1.0)["rules"] == ["pass tcp guest-port 3389"]

    def test_a_compare_that_joins_later_gets_them_behind_its_welcome(self):
        f = primary()
        self.ask(f, rules=self.TEXT)
        outputs = f.hear("comp9", hello(name="comp9"), 2.0)
        kinds = [type(o.message) for o in outputs if isinstance(o, Tell) and o.to == "comp9"]
        assert kinds[:2] == [Welcome, SetRules]
        assert not told(f.hear("m0", hello("mirror", "m0"), 2.0), SetRules)

    def test_nothing_is_said_where_nothing_was_set(self):
        f = Frame(PRIMARY, 1, 0.0)
        assert not told(f.hear("comp0", hello(), 0.0), SetRules)
        assert self.ask(f)[0].body == {"rules": None}

    def test_wrong_ones_are_refused_with_the_line(self):
        f = primary()
        answered, outputs = self.ask(f, rules="pass tcp\npass tpc")
        assert not answered.ok
        assert "line 2" in answered.error
        assert not told(outputs, SetRules)

    def test_they_are_the_primarys(self):
        f = Frame(SECONDARY, 1, 0.0)
        assert not self.ask(f, rules=self.TEXT)[0].ok

    def test_a_restarted_frame_learns_them_from_a_compare(self):
        f = primary()
        f.hear("comp1", hello(name="comp1"), 0.0)
        outputs = f.hear("comp0", SetRules(self.TEXT), 1.0)
        assert told(outputs, SetRules, "comp1") == [SetRules(self.TEXT)]
        f.hear("comp1", SetRules("pass any"), 1.0)
        assert f.rules == SetRules(self.TEXT), "the first to tell is believed"

    def test_rules_of_its_own_file_come_before_what_it_hears(self):
        f = primary()
        assert told(f.load_rules(self.TEXT, "my.rules"), SetRules, "comp0") == [SetRules(self.TEXT)]
        f.hear("comp0", SetRules("pass any"), 1.0)
        assert f.rules == SetRules(self.TEXT)

    def test_strangers_set_nothing(self):
        f = primary()
        f.hear("nobody", SetRules("pass any"), 1.0)
        assert f.rules is None

    def test_the_message_crosses_the_wire(self):
        assert decode(encode(SetRules(self.TEXT))) == SetRules(self.TEXT)
