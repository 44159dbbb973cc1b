"""Two COLO frames joined by their link: what each learns from the other, and how the secondary follows."""

from colo_frame.frame import Frame
from colo_frame.peer import PEER
from colo_frame.registry import EVERYBODY
from colo_frame.table import make_table
from colo_proto.codec import decode, encode
from colo_proto.core import Tell
from colo_proto.messages import Answer, CheckpointDone, CheckpointWanted, Flushed, Heartbeat, Query, Reason, WorkerTable

from .frames import PRIMARY, SECONDARY, Copying, events, hello, report, request, told


class Pair:
    """Two COLO frames whose link encodes, carries and decodes every message at once, unless it is cut."""

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
        """Let time pass until `until`, with every timer on the way; processes report once a second."""
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
    outputs = pair.hear("p", "comp0", request())
    assert [o.to for o in outputs if isinstance(o, Tell) and isinstance(o.message, CheckpointDone)] == [PEER, EVERYBODY]
    assert told(pair.heard["s"], CheckpointDone, EVERYBODY) == [CheckpointDone(1, state_copied=False)]
    assert pair.s.side.checkpoints.epoch == 1


def test_a_gap_on_the_secondary_becomes_a_checkpoint_of_the_pair():
    pair = Pair()
    pair.hear("s", "rew0", request(Reason.MIRROR_GAP, source=""))
    assert pair.p.counters["checkpoints_wanted.mirror_gap"] == 1
    assert pair.p.status(0.0)["checkpoint"]["wanted"][0]["source"] == "rew0"
    assert told(pair.heard["s"], CheckpointDone, EVERYBODY) == [CheckpointDone(1, state_copied=False)]


def test_a_gap_while_the_link_is_cut_is_told_when_it_is_back():
    pair = Pair()
    pair.cut = True
    pair.run(5.0)
    assert not told(pair.hear("s", "rew0", request(Reason.MIRROR_GAP, source="rew0")), CheckpointWanted)
    pair.run(9.0)
    assert pair.p.side.checkpoints.epoch == 0
    pair.cut = False
    pair.run(10.0)
    assert pair.p.counters["checkpoints_wanted.mirror_gap"] == 1
    pair.run(20.0)
    assert pair.p.counters["checkpoints_wanted.mirror_gap"] == 1


def test_a_checkpoint_that_the_secondary_missed_is_made_up_for():
    pair = Pair()
    pair.p.side.checkpoints.driver = Copying()
    pair.cut = True
    pair.hear("p", "comp0", request())
    pair.hear("p", "comp0", Flushed(1, "comp0"))
    assert pair.s.side.checkpoints.epoch == 0
    pair.cut = False
    seen = pair.run(1.0)
    assert told(seen["s"], CheckpointDone, EVERYBODY) == [CheckpointDone(1, state_copied=True)]
    assert pair.s.counters["checkpoints_caught_up"] == 1


def test_the_secondary_repeats_the_primarys_table_to_its_splitters():
    pair = Pair()
    assert pair.s.side.table == make_table(1, ["comp0"])
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
    assert pair.s.side.table == pair.p.side.table


def test_the_primarys_mode_is_known_on_the_secondary():
    pair = Pair()
    pair.hear("p", "cli", Query("mode", {"mode": "bypass"}))
    assert pair.s.side.modes.mode == "bypass"
    refused = told(pair.hear("s", "cli", Query("mode", {"mode": "enforce"})), Answer, "cli")[0]
    assert not refused.ok
    assert pair.p.side.modes.mode == "bypass"


def test_a_checkpoint_can_be_demanded_on_the_secondary_while_the_primary_answers():
    pair = Pair()
    assert told(pair.hear("s", "cli", Query("checkpoint")), Answer, "cli")[0].ok
    assert pair.p.side.checkpoints.epoch == 1
    pair.cut = True
    pair.run(5.0)
    assert not told(pair.hear("s", "cli", Query("checkpoint")), Answer, "cli")[0].ok


def test_two_frames_of_one_side_are_an_error_and_do_not_follow_each_other():
    f = Frame(SECONDARY, 1)
    outputs = f.hear(PEER, Heartbeat("secondary", 2, 1, epoch=9, mode="bypass"), 0.0)
    assert "peer.conflicted" in events(outputs)
    assert (f.side.checkpoints.epoch, f.side.modes.mode) == (0, "enforce")


def test_a_fencing_token_is_remembered_and_passed_on():
    pair = Pair()
    pair.run(1.0)
    pair.p.side.ownership.leadership.fence = 4
    pair.run(2.0)
    assert (pair.p.side.ownership.leadership.fence, pair.s.side.ownership.leadership.fence) == (4, 4)


def test_what_a_heartbeat_says_without_a_seal_is_for_people():
    """Only the claim in a heartbeat decides who may write."""
    pair = Pair()
    pair.run(1.0)
    pair.hear("s", PEER, Heartbeat("primary", 1, 99, 0, fence=4, state="alone"))
    assert pair.s.side.ownership.leadership.fence == 0
    assert pair.s.status(pair.now)["peer"]["fence"] == 4
    assert pair.s.counters["claims_refused"] == 1


def test_garbage_in_a_heartbeat_is_not_taken():
    f = Frame(SECONDARY, 1)
    beat = Heartbeat("primary", 2, 1, epoch=3, mode="dance", table={"version": 1}, body={"copied_epoch": "all"})
    outputs = f.hear(PEER, beat, 0.0)
    assert told(outputs, CheckpointDone, EVERYBODY) == [CheckpointDone(3, state_copied=False)]
    assert (f.side.modes.mode, f.side.table.version) == ("enforce", 0)
