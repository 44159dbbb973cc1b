"""Which messages the frame takes, and what it does with the rest."""

from colo_frame.config import FrameConfig
from colo_frame.frame import Frame
from colo_frame.peer import PEER
from colo_proto.codec import decode, encode
from colo_proto.messages import Answer, CheckpointDone, Drain, Flushed, Heartbeat, Query

from .frames import hello, primary, report, request, told


def test_messages_that_are_not_for_a_frame_are_counted():
    f = primary()
    f.hear("comp0", Drain(), 0.0)
    f.hear(PEER, Drain(), 0.0)
    f.hear(PEER, CheckpointDone(4, state_copied=True), 0.0)
    assert f.counters["ignored_messages"] == 3
    assert f.side.checkpoints.epoch == 0


def test_an_anonymous_client_may_ask_but_is_not_written_down():
    f = primary()
    name = b"\x00k\x8bE\xff".decode(errors="surrogateescape")
    assert told(f.hear(name, Query("checkpoint"), 1.0), Answer, name)[0].ok
    for message in (hello(), report(), request(), Flushed(1, "comp0")):
        f.hear(name, message, 1.0)
    (reply,) = told(f.hear(name, Query("status"), 1.0), Answer, name)
    assert decode(encode(reply)) == reply
    assert reply.body["checkpoint"]["wanted"][0]["source"] == "anonymous"
    assert f.counters["ignored_messages"] == 4


def test_without_a_peer_no_heartbeat_is_sent():
    f = Frame(FrameConfig(side="secondary"), 1)
    assert told(f.on_timer(0.0), Heartbeat) == []
    assert f.deadline() > 0.0
