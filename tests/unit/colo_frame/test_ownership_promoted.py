"""After a promotion: who has the LAN when COLO frames are restarted, stall or miss something, and what orders do."""

from colo_proto.messages import LanSay, Mode

from .test_ownership import DETECTION, up


def promoted():
    """A planned failover is over."""
    world = up()
    assert world.ask("s", "failover").ok
    world.until(world.s.could_write, 1.0)
    assert (world.p.state, world.s.state) == ("fenced", "promoted")
    return world


def test_the_promoted_side_stands_still_and_the_other_is_restarted_meanwhile():
    """The primary comes back, hears nobody, and goes on alone. A secondary that then runs again may write no frame."""
    world = promoted()
    world.freeze("s")
    world.p.start_frame()
    world.until(world.p.could_write, DETECTION + 1.0)
    assert world.p.state == "alone"
    # Nothing waits for it that would tell it so.
    for one in world.s.processes.values():
        one.inbox.clear()
    world.freeze("s", frozen=False)
    world.run(5.0)
    assert world.p.could_write()
    assert world.s.state == "fenced"
    assert not world.s.writer.promoted, "its filters know"


def test_the_promoted_sides_frame_is_restarted_too_late():
    """As before, but the COLO frame was restarted: it learns of the promotion from its processes."""
    world = promoted()
    world.freeze("s", "frame")
    world.p.start_frame()
    world.until(world.p.could_write, DETECTION + 1.0)
    world.s.start_frame()
    world.run(5.0)
    assert world.p.could_write()
    assert world.s.state == "fenced"
    assert not world.s.writer.promoted


def test_the_promoted_side_stands_still_and_asks():
    world = promoted()
    world.freeze("s")
    world.run(2.0)
    world.freeze("s", frozen=False)
    world.until(world.s.could_write, 0.3)
    assert (world.p.state, world.s.state) == ("fenced", "promoted"), "the other side says at once that it is fenced"


def test_the_promoted_side_stands_still_and_nobody_else_is_there():
    world = up()
    world.kill("p")
    world.until(world.s.could_write, DETECTION + 0.6)
    began = world.s.frame.status(world.now)["leadership"]["promotion"]["at"]
    world.freeze("s")
    world.run(2.0)
    world.freeze("s", frozen=False)
    world.run(1.0)
    assert not world.s.could_write(), "the other side may be about to speak"
    world.until(world.s.could_write, DETECTION)
    assert world.s.state == "promoted"
    assert world.s.frame.status(world.now)["leadership"]["promotion"]["at"] == began, "the promotion is the same"


def test_the_promoted_sides_frame_is_restarted_while_permissions_run():
    world = up()
    world.kill("p")
    world.until(world.s.could_write, DETECTION + 0.6)
    world.s.start_frame()
    for _ in range(300):
        world.run(0.01)
        assert world.s.could_write(), "not a moment without"


def test_a_primary_that_nobody_could_hear_asks_before_it_writes_again():
    """Both ways are cut for a while. The secondary has taken over, so the primary may not write with its old leases."""
    world = up()
    world.link = False
    world.freeze("p", "m0")
    world.until(world.s.could_write, DETECTION + 0.6)
    assert world.p.state == "leaving"
    # Its own words get out late, and nothing else.
    world.p.heartbeat.inbox = type(world.p.heartbeat.inbox)(
        one for one in world.p.heartbeat.inbox if isinstance(one, LanSay)
    )
    world.freeze("p", "m0", frozen=False)
    world.run(10.0)
    assert len([host for host in world.hosts.values() if host.could_write()]) == 1


def test_the_secondary_dies_while_the_primary_stands_still():
    """It asks, nobody answers, and it releases what it would hold for a secondary."""
    world = up()
    world.freeze("p")
    world.kill("s")
    world.run(3.0)
    world.freeze("p", frozen=False)
    world.until(lambda: world.p.state == "alone", DETECTION + 1.0)
    world.run(1.0)
    assert world.p.could_write()
    assert world.p.frame.side.modes.mode == Mode.BYPASS


def test_the_promoted_sides_frame_is_restarted_and_hears_the_fenced_primary_first():
    """The primary's token is higher than the one that the processes know, but they still have the LAN."""
    world = promoted()
    world.p.frame.side.ownership.leadership.fence = 6
    world.run(1.0)
    world.freeze("s", "frame")
    world.run(2.0)
    own, world.s.hello = world.s.hello, lambda _: None
    world.s.start_frame()
    world.run(0.6)
    assert world.s.frame.side.ownership.leadership.fence == 6
    world.s.hello = own
    for name in ("f1", "f2"):
        own(world.s.processes[name])
    world.until(world.s.could_write, 1.0)
    assert (world.p.state, world.s.state) == ("fenced", "promoted")


def test_a_process_that_missed_the_end_of_a_promotion_is_told_when_it_says_hello():
    world = promoted()
    world.freeze("s")
    world.p.start_frame()
    world.until(world.p.could_write, DETECTION + 1.0)
    # Only the frame is another; the primary is heard before the processes are.
    own, world.s.hello = world.s.hello, lambda _: None
    world.s.start_frame()
    world.run(1.0)
    world.s.hello = own
    world.freeze("s", frozen=False)
    for name in ("f1", "f2"):
        own(world.s.processes[name])
    world.run(1.0)
    assert world.p.could_write()
    assert world.s.state == "standby"
    assert not world.s.writer.promoted


def test_an_order_to_take_over_waits_for_an_ear_that_was_there():
    world = up()
    world.link = False
    world.freeze("s", "f1")
    assert world.ask("s", "failover").ok
    world.run(10.0)
    assert world.s.state == "taking", "the primary may be alive: nobody here can hear it"
    assert world.p.could_write()
    world.freeze("s", "f1", frozen=False)
    world.run(1.0)
    assert (world.p.state, world.s.state) == ("alone", "standby"), "it hears that the primary went on alone"


def test_an_order_by_force_does_not_wait_for_it():
    world = up()
    world.kill("p")
    world.kill("s", "f1")
    assert world.ask("s", "failover").ok
    world.run(10.0)
    assert world.s.state == "taking"
    assert world.ask("s", "failover", force=True).ok
    world.until(world.s.could_write, 0.1)


def test_force_lasts_until_somebody_has_heard_it():
    """The primary yielded on the link. From then on the usual rules hold: the lease ends with link and heartbeat."""
    world = up()
    world.freeze("s", "f1")
    assert world.ask("s", "failover", force=True).ok
    world.until(world.s.could_write, 1.0)
    world.link = False
    world.p.start_frame()
    world.until(world.p.could_write, DETECTION + 1.0)
    assert not world.s.could_write()
