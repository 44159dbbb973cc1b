"""What compare shows of what it holds."""

from playbook import Play, udp


def test_the_age_of_the_oldest_held_frame():
    play = Play()
    assert play.core.gauges()["held_oldest_ms"] == 0
    play >> udp("P", b"a")
    play.at(1.2)
    play >> udp("P", b"b")
    play.at(1.2)
    # As of the last scan, which is at most one cycle ago.
    assert 1400 <= play.core.gauges()["held_oldest_ms"] <= 2400
    play >> udp("S", b"a") >> udp("S", b"b")
    assert play.core.gauges()["held"] == 0
    assert play.core.gauges()["held_oldest_ms"] == 0
