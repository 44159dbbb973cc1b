"""Numbers of control messages that could not be packed again once they are counted on."""

import msgpack
import pytest

from colo_frame.config import FrameConfig
from colo_frame.frame import Frame
from colo_frame.peer import PEER
from colo_proto.codec import KIND_CONTROL, WIRE_VERSION, decode, encode
from colo_proto.core import Tell
from colo_proto.errors import WireError
from colo_proto.messages import CheckpointDone, CheckpointWanted, Heartbeat


def packed(name, **body):
    return msgpack.packb([WIRE_VERSION, KIND_CONTROL, name, body])


@pytest.mark.parametrize("number", [2**63, 2**64 - 1])
def test_a_number_beyond_63_bits_is_refused(number):
    with pytest.raises(WireError, match="epoch has the wrong type"):
        decode(packed("checkpoint_done", epoch=number, state_copied=True))
    with pytest.raises(WireError, match="counters has the wrong type"):
        decode(
            packed("report", role="mirror", id="m0", incarnation=1, counters={"frames": number}, gauges={}),
        )


def test_the_largest_number_is_taken_and_can_be_counted_on():
    message = CheckpointDone(2**63 - 1, state_copied=True)
    assert decode(encode(message)) == message
    frame = Frame(FrameConfig(side="primary", peer="ipc:///run/p"), 7)
    outputs = frame.hear(PEER, Heartbeat("secondary", 1, 1, 2**63 - 1, 2**63 - 1), 1.0)
    outputs += frame.hear(PEER, CheckpointWanted("request"), 1.1) + frame.on_timer(3.0)
    tells = [output.message for output in outputs if isinstance(output, Tell)]
    assert any(isinstance(message, CheckpointDone | Heartbeat) for message in tells)
    for one in tells:
        assert encode(one)


@pytest.mark.parametrize("number", [-7, 2**62])
def test_a_heartbeat_with_impossible_numbers_is_ignored(number):
    frame = Frame(FrameConfig(side="secondary", peer="ipc:///run/p"), 7)
    outputs = frame.hear(PEER, Heartbeat("primary", 1, number, 1, state="holding"), 1.0)
    assert frame.counters["ignored_messages"] == 1
    for output in [*outputs, *frame.on_timer(9.0)]:
        assert not isinstance(output, Tell) or encode(output.message)
