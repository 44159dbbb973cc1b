"""What the capture on the LAN concludes from frames."""

from colo_lab.lanwatch import Watcher
from packets import parse


def seen(*lines, quiet=None):
    watcher = Watcher(quiet)
    for now, line in enumerate(lines):
        port, _, text = line.partition(" ")
        watcher.see(float(now), f"lan-{port}", parse(text.split()).frame())
    return watcher.report(99.0, 0)


def test_one_port():
    report = seen("p SA 1000 1", "p A 1001 1 +100", "p A 1101 5")
    assert report["frames"] == {"lan-p": 3}
    assert report["switches"] == [(0.0, "lan-p")]
    assert (report["late"], report["changes"], report["broken"]) == (0, [], [])


def test_a_connection_that_goes_on_where_it_was():
    report = seen("p A 1001 1 +100", "s A 1101 1 +100", "s A 1201 9")
    assert (report["late"], report["broken"]) == (0, [])
    (change,) = report["changes"]
    assert change == {
        "at": 1.0, "port": "lan-s", "before": 0.0, "after": 1.0, "continued": 1, "reset": 0, "unknown": 0,
    }  # fmt: skip


def test_a_retransmission_first_is_as_good():
    assert seen("p A 1001 1 +100", "s A 1001 1 +50", "s A 1051 1 +100")["broken"] == []


def test_what_was_lost_at_the_switch_may_come_later_but_must_come():
    lines = ["p A 1001 1 +100", "s A 1201 1 +100", "s A 1301 1 +100"]
    assert seen(*lines)["broken"] == ["10.0.0.2:80 > 10.0.0.9:5000: byte 1101 never came"]
    assert seen(*lines, "s A 1101 1 +100")["broken"] == []
    assert seen(*lines, "s A 1050 1 +51")["broken"] != [], "it ends before that byte"


def test_an_ack_that_goes_back():
    (text,) = seen("p A 1001 500", "s A 1001 400")["broken"]
    assert "ACK 500 on lan-p, then 400 on lan-s" in text


def test_numbers_wrap():
    assert seen("p A 4294967290 4294967290 +10", "s A 4 2 +10")["broken"] == []


def test_two_writers():
    report = seen("p A 1001 1 +100", "s A 1101 1", "p A 1101 1", "s A 1101 1", "p A 1101 1")
    assert report["late"] == 2


def test_the_leadership_comes_back():
    there, back = ("p A 1001 1 +100", "s A 1101 1 +100"), ("s A 1201 1 +100", "s A 1301 1 +100", "p A 1401 1 +100")
    report = seen(*there, *back, quiet=3.0)
    assert (report["late"], report["broken"]) == (0, [])
    assert [(one["port"], one["continued"]) for one in report["changes"]] == [("lan-s", 1), ("lan-p", 1)]
    assert [(one["before"], one["after"]) for one in report["changes"]] == [(0.0, 1.0), (3.0, 4.0)]
    assert seen(*there, *back)["late"] == 1, "in the other wirings it never does"
    soon = seen(*there, "p A 1201 1 +100", "s A 1301 1 +100", quiet=3.0)
    assert (soon["late"], len(soon["changes"])) == (1, 1), "two writers are not silent for so long"


def test_what_became_of_connections_at_two_changes():
    quiet = ["s SA 5000 1", *["s A 5001 1"] * 2]
    report = seen("p A 1001 1 +100", "s A 1101 1 +100", *quiet, "p A 1201 1 +100", quiet=2.0)
    assert [one["continued"] for one in report["changes"]] == [1, 1], "the same ports are another connection after SYN"
    idle = seen("p A 1001 1 +100", *["s arp"] * 3, "p A 1101 1 +100", quiet=2.0)
    assert [(one["continued"], one["unknown"]) for one in idle["changes"]] == [(1, 0), (1, 0)]
    reset = seen("p A 1001 1 +100", "s A 1101 2", *["s arp"] * 3, "p R 1101", quiet=2.0)
    assert [(one["continued"], one["reset"]) for one in reset["changes"]] == [(1, 0), (0, 1)]


def test_frames_that_are_no_tcp_and_damaged_ones_count_as_written():
    report = seen("p arp", "s arp", 's udp "x"')
    assert report["frames"] == {"lan-p": 1, "lan-s": 2}
    watcher = Watcher()
    for size in range(14, 70):
        watcher.see(0.0, "lan-p", parse(["A", "1", "1"]).frame()[: 10 + size])
    assert watcher.frames == {"lan-p": 56}


def test_resets_are_counted():
    assert seen("p A 1001 1", "s R 1001")["resets"] == {"lan-s": 1}


def counts(*lines):
    changes = seen(*lines)["changes"] or [dict.fromkeys(("continued", "reset", "unknown"), 0)]
    return tuple(changes[-1][fate] for fate in ("continued", "reset", "unknown"))


def test_what_became_of_connections_at_a_switch():
    assert counts("p A 1001 1 +100") == (0, 0, 0), "nobody has switched"
    assert counts("p A 1001 1 +100", "s A 1101 1") == (0, 0, 1), "an ACK that says nothing new is no progress"
    assert counts("p A 1001 1 +100", "s A 1101 2") == (1, 0, 0)
    assert counts("p A 1001 1 +100", "s R 1101") == (0, 1, 0)
    assert counts("p A 1001 1 +100", "s A 1101 1 +5", "s R 1106", "s R 1106") == (0, 1, 0), "it did not last"
    assert counts("p FA 1001 1", "s A 1002 1") == (0, 0, 0), "it was over before"
    assert counts("p A 1001 1 +100", "s SA 9000 1", "s A 9001 5 +9") == (0, 0, 0), "another connection on its ports"


def test_a_connection_that_was_reset_need_not_go_on():
    assert seen("p A 1001 500", "s A 1001 400", "s R 1001")["broken"] == []
    assert seen("p A 1001 1 +100", "s A 1201 1 +100", "s R 1001")["broken"] == []
