"""How differences are explained, and the frames that are kept of them."""

from colo_compare.compare import Compare
from colo_compare.config import CompareConfig
from colo_proto.core import Save
from colo_proto.messages import CheckpointDone
from colo_proto.pcapng import encode
from playbook import P, Play, S, open_connection, udp

D = b"ABCDEFGHIJ"


def saves(core, frames, now=100.0):
    found = []
    for frame in frames:
        port = "primary_in" if frame.side == "P" else "secondary_in"
        found += [one for one in core.receive(port, [frame.data], now) if isinstance(one, Save)]
        now += 0.001
    return found


def test_evidence_shows_both_sides_and_the_verdict():
    core = Compare(CompareConfig(evidence_dir="ev", evidence_files=2))
    (save,) = saves(core, [P(5000, D), S(5000, D), P(5010, D), S(5010, b"ABCDEFGHIX")])
    assert save.path == "ev/comp0-0000.pcapng"
    capture = save.capture
    assert capture.interfaces == ("primary", "secondary")
    mine, its = ([one for one in capture.frames if one.interface == side] for side in (0, 1))
    assert [one.frame for one in mine] == [P(5010, D).data]
    assert "reason payload" in mine[0].comment
    assert "offset 19" in mine[0].comment
    assert S(5010, b"ABCDEFGHIX").data in [one.frame for one in its]
    (last,) = core.status()["last"]
    assert last["evidence"] == save.path
    encode(capture, 1e9)


def test_evidence_is_bounded_in_number_size_and_pace():
    core = Compare(CompareConfig(evidence_dir="ev", evidence_files=2))
    paths, now = [], 100.0
    for port in range(9):
        big = bytes(60000)
        first, last = [P(5000 + n * 60000, big, dport=port) for n in range(20)], S(5000, b"\1" + big[1:], dport=port)
        found = saves(core, [*first, last], now)
        for save in found:
            paths.append(save.path)
            assert len(encode(save.capture)) < 1 << 20
            assert {one.interface for one in save.capture.frames} == {0, 1}
        now += 0.5
    assert set(paths) == {"ev/comp0-0000.pcapng", "ev/comp0-0001.pcapng"}
    assert 4 <= len(paths) <= 5
    assert core.counters["evidence_skipped"] + core.counters["evidence_files"] == 9


def test_without_a_directory_there_is_no_evidence():
    assert not saves(Compare(CompareConfig()), [P(5000, D), S(5000, D[::-1])])


def test_a_difference_is_explained_in_one_event():
    play = open_connection(Play())
    mine, its = bytearray(range(64)), bytearray(range(64))
    its[40] = 99
    play >> P(1000, bytes(mine))
    play.now += 0.25
    play >> P(1064, b"more") >> S(1000, bytes(its))
    (event,) = [log for log in play.logs if log.level == "warning"]
    fields = event.fields
    assert event.event == "miscompare.found"
    assert (fields["reason"], fields["flow"], fields["offset"]) == ("payload", "tcp 10.0.0.2:80 > 10.0.0.9:5000", 40)
    assert bytes.fromhex(fields["primary"]) == bytes(mine[24:56])
    assert bytes.fromhex(fields["secondary"]) == bytes(its[24:56])
    assert (fields["context"], fields["secondary_context"]) == (16, 16)
    assert (fields["age_ms"], fields["held"], fields["secondary_pending"]) == (250, 2, 1)
    assert play.wanted[0].detail["primary"] == fields["primary"]
    assert play.core.status()["last"] == [fields]


def test_an_expired_flow_answers_a_late_checkpoint():
    play = Play()
    play >> udp("P", b"x")
    play.at(4)
    assert play.wanted
    play.tell(CheckpointDone(1, state_copied=True))
    assert play.held == 0
    assert len(play.sent) == 1
