from colo_frame.peer import Peer
from colo_proto.messages import Heartbeat


def beat(incarnation=1, **more):
    return Heartbeat("secondary", incarnation, 1, 0, **more)


def test_found_lost_and_found_again():
    peer = Peer(2.5)
    assert peer.status(0.0) == {"alive": False, "state": "never seen"}
    assert peer.hear(beat(), 1.0) == (True, False)
    assert peer.hear(beat(), 2.0) == (False, False)
    assert not peer.sweep(4.4)
    assert peer.sweep(4.5)
    assert not peer.sweep(9.0)
    assert peer.status(9.0)["state"] == "lost"
    assert peer.hear(beat(), 9.0) == (True, False)
    assert peer.status(9.5)["age_ms"] == 500


def test_another_incarnation_is_a_restart():
    peer = Peer(2.5)
    peer.hear(beat(1), 0.0)
    assert peer.hear(beat(2), 1.0) == (False, True)


def test_the_deadline_is_the_verdict():
    peer = Peer(2.5)
    assert peer.deadline() is None
    peer.hear(beat(), 1.0)
    assert peer.deadline() == 3.5


def test_silence_counts_from_when_it_could_be_heard():
    peer = Peer(2.5)
    peer.hear(beat(), 1.0)
    peer.excuse(60.0)
    assert not peer.sweep(62.4)
    assert peer.sweep(62.5)


def test_a_peers_body_is_shown_but_cannot_hide_what_is_known():
    peer = Peer(2.5)
    peer.hear(beat(body={"role": "liar", "processes": 3, 5: 6}), 0.0)
    status = peer.status(0.0)
    assert status["role"] == "secondary"
    assert status["peer_processes"] == 3
