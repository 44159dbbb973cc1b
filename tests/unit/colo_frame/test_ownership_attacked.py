"""One writer to the client LAN, never two and never none, while an attacker on that LAN does what he can."""

import pytest

from colo_frame.peer import PEER
from colo_proto.claim import Stand, State, derive, write_claim
from colo_proto.messages import Hello, Report
from ownership_host import TICK
from ownership_world import World

DETECTION = 2.5
"""Default heartbeat interval times missed ones, seconds."""
FLOOD = 30
"""Frames of junk each 10 ms: 3,000 a second."""


def up(**options):
    world = World(**options).run(3.0)
    assert (world.p.state, world.s.state) == ("holding", "standby")
    assert world.p.could_write()
    return world


def promoted(world):
    assert world.ask("s", "failover").ok
    world.until(world.s.could_write, 1.0)
    assert (world.p.state, world.s.state) == ("fenced", "promoted")
    return world


# -- floods ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("phase", [0.0, 0.13, 0.27, 0.41])
def test_a_flood_of_junk_does_not_hide_a_primary_that_lives(phase):
    world = up().run(phase)
    world.flood("s", FLOOD)
    world.flood("p", FLOOD)
    world.link = False
    for _ in range(15):
        world.run(1.0)
        assert world.s.frame.side.ownership.leadership.heard > world.s.now - 1.0
    assert (world.p.state, world.s.state) == ("alone", "standby")


@pytest.mark.parametrize("phase", [0.0, 0.13, 0.27, 0.41])
def test_nor_does_a_flood_of_recorded_claims(phase):
    world = up().run(phase)
    for _ in range(8):
        world.p.start_frame()
        world.run(1.5)
    world.replay("s", world.recorded("p"), every=TICK)
    world.link = False
    for _ in range(15):
        world.run(1.0)
        assert world.s.frame.side.ownership.leadership.heard > world.s.now - 1.0
    assert (world.p.state, world.s.state) == ("alone", "standby")


def overflow(world, letter, dropped):
    """netdev of this host reports how many frames the kernel has dropped at its taps so far."""
    host = world.hosts[letter]
    host.to_frame("netdev", Hello("netdev", "netdev", 7))
    counters = {f"tap.{name}.dropped": n for name, n in dropped.items()}
    host.to_frame("netdev", Report("netdev", "netdev", 7, counters, {}, {}))


def test_a_secondary_whose_tap_on_the_lan_drops_frames_does_not_take_over():
    """A flood takes the place of the claims in the tap, and the link is cut as well: the primary lives."""
    world = up()
    overflow(world, "s", {"lan": 10})
    world.hold("p")
    world.link = False
    for second in range(15):
        overflow(world, "s", {"lan": 1000 * (second + 2)})
        world.run(1.0)
    assert (world.p.state, world.s.state) == ("alone", "standby")
    assert world.s.frame.counters["lan_overflows"] == 15
    # The flood is over, and the primary is dead: its silence counts from then on.
    world.kill("p")
    world.held.clear()
    world.until(world.s.could_write, 4 * DETECTION)


@pytest.mark.parametrize("dropped", [{"guest": 1000}, {"lan": 10}])
def test_what_other_taps_drop_or_was_dropped_before_delays_nothing(dropped):
    world = up()
    overflow(world, "s", {"lan": 10, "guest": 0})
    world.run(0.5)
    world.kill("p")
    for _ in range(4):
        overflow(world, "s", {"lan": 10} | dropped)
        world.run(1.0)
    assert world.s.state == "promoted"
    assert world.s.frame.counters["lan_overflows"] == 0


def test_a_primary_that_asks_does_not_go_on_alone_while_its_tap_on_the_lan_drops_frames():
    world = promoted(up())
    world.link = False
    world.hold("s")
    world.p.start_frame()
    for second in range(12):
        overflow(world, "p", {"lan": 1000 * second})
        world.run(1.0)
        assert world.p.state == "asking"
    assert world.s.could_write()


def test_who_knows_the_name_of_the_pair_alone_is_not_heard():
    world = up()
    keys = derive(b"", "colo")
    frames = [
        write_claim(
            Stand("secondary", 77, count, 99, State.PROMOTED, echo_of=world.p.frame.side.incarnation), "colo", keys
        )
        for count in range(1, 40)
    ]
    world.replay("p", frames)
    world.run(10.0)
    assert (world.p.state, world.s.state) == ("holding", "standby")
    assert world.p.frame.side.ownership.leadership.fence == 0


# -- recordings ------------------------------------------------------------------------------------


def test_recorded_promotions_do_not_fence_a_primary():
    """The secondary was promoted once, and is dead now."""
    world = promoted(up())
    world.run(3.0)
    tape = world.recorded("s", "promoted")
    world.kill("s")
    world.p.start_frame()
    world.replay("p", tape)
    world.until(world.p.could_write, DETECTION + 0.6)
    for _ in range(100):
        world.run(0.1)
        assert world.p.could_write()


def test_nor_in_a_pair_that_was_started_again():
    world = promoted(up())
    world.run(3.0)
    tape = world.recorded("s", "promoted", "taking")
    world.start_again()
    world.until(world.p.could_write, 1.0)
    world.replay("p", tape)
    for _ in range(100):
        world.run(0.1)
        assert world.p.could_write()
    assert world.p.frame.side.ownership.leadership.fence == 0


@pytest.mark.parametrize("restarts", [0, 3])
def test_recorded_claims_of_a_dead_primary_do_not_put_its_failover_off(restarts):
    world = up()
    for _ in range(restarts):
        world.p.start_frame()
        world.run(4.0)
    world.kill("p")
    world.replay("s", world.recorded("p"))
    world.until(world.s.could_write, DETECTION + 0.6)


def test_nor_do_recorded_claims_of_a_primary_that_the_secondary_never_heard():
    """Its frame was restarted meanwhile, and remembers no other side."""
    world = up()
    for letter in "ps":
        world.hosts[letter].start_frame()
        world.run(4.0)
    tape = world.recorded("p", until=3.0)
    world.kill("p")
    world.replay("s", tape)
    world.until(world.s.could_write, DETECTION + 0.6)


def test_nor_do_recorded_heartbeats_on_a_link_without_keys():
    world = up()
    world.kill("p")
    beats = [beat for letter, beat in world.link_tape if letter == "p"]

    def again():
        beats.append(beats.pop(0))
        world.s.to_frame(PEER, beats[-1])

    world.attack["link"] = again
    world.until(world.s.could_write, DETECTION + 0.6)


def test_an_old_word_of_a_primary_that_was_protected_makes_no_replica():
    world = up()
    tape = world.recorded("p", "holding")
    world.p.start_frame()
    world.run(4.0)
    world.link = False
    world.until(lambda: world.p.state == "alone", DETECTION + 1.1)
    world.replay("s", tape)
    for _ in range(50):
        world.run(0.1)
        assert not world.s.frame.side.ownership.leadership.promotable
    world.kill("p")
    world.run(20.0)
    assert world.s.state == "standby"


def test_an_old_word_of_a_primary_that_gave_way_promotes_nobody():
    """Before the pair was restarted, the primary was fenced by the same token that the secondary takes now."""
    world = promoted(up())
    world.run(3.0)
    tape = world.recorded("p", "fenced")
    world.start_again()
    world.run(4.0)
    assert (world.p.state, world.s.state) == ("holding", "standby")
    world.replay("s", tape, every=TICK)
    # The primary does not hear of it: its permissions run on.
    world.link = False
    world.freeze("p", "frame", "m0")
    assert world.ask("s", "failover").ok
    world.run(1.0)
    assert world.p.could_write()
    assert world.s.state == "taking"
    world.until(world.s.could_write, DETECTION)
    assert not world.both


# -- delays ----------------------------------------------------------------------------------------


def test_claims_that_were_held_back_do_not_put_a_failover_off():
    """The last claims of a primary that has died are delivered one by one."""
    world = up()
    beats = len(world.link_tape)
    world.until(lambda: any(letter == "p" for letter, _ in world.link_tape[beats:]))
    world.run(2 * TICK)
    world.hold("p")
    world.link = False
    world.run(1.9)
    world.kill("p")
    words = world.held.pop("p")
    assert len(words) >= 3
    world.run(0.4)
    assert world.s.state == "standby"
    for word in words:
        world.inject("s", word)
        world.run(2.3)
    # The first one was young enough, and the others were not.
    assert world.s.frame.side.ownership.silence <= DETECTION + 0.1
    assert world.s.frame.side.ownership.promoted_at < world.s.now - 2.3 * (len(words) - 1.5)


def test_a_claim_that_was_held_back_for_half_a_minute_says_nothing():
    world = up()
    world.hold("s")
    assert world.ask("s", "failover").ok
    world.until(world.s.could_write, 1.0)
    world.run(3.0)
    words = world.held.pop("s")
    world.start_again()
    world.run(27.0)
    world.replay("p", words)
    world.run(10.0)
    assert (world.p.state, world.s.state) == ("holding", "standby")


# -- what must still work, while all that goes on ------------------------------------------------------


@pytest.mark.parametrize("attacked", [False, True])
def test_a_frame_that_is_restarted_while_the_link_is_cut_proves_itself_on_the_lan(attacked):
    world = up()
    world.link = False
    world.until(lambda: world.p.state == "alone", DETECTION + 1.1)
    if attacked:
        world.replay("s", world.recorded("p"), every=TICK)
        world.replay("p", world.recorded("s"), every=TICK)
        world.flood("s", FLOOD)
        world.flood("p", FLOOD)
    for letter in "psps":
        world.hosts[letter].start_frame()
        world.until(lambda: known(world, "p") and known(world, "s"), 0.5)
    world.until(world.p.could_write, DETECTION + 0.5)
    world.run(10.0)
    assert world.p.could_write()
    assert world.s.state == "standby"


def known(world, letter):
    """Does this host believe the present start of the other one?"""
    host = world.hosts[letter]
    other = host.frame.side.ownership.leadership.other
    return other is not None and other.incarnation == world.other(host).frame.side.incarnation


def test_many_recorded_starts_do_not_keep_a_new_one_out():
    """Each recorded start is answered, too. There must be a place left for the start that is alive."""
    world = up()
    for _ in range(40):
        world.p.start_frame()
        world.run(0.4)
    tape = world.recorded("p")
    world.s.start_frame()
    world.run(1.0)
    world.link = False
    world.replay("s", tape, every=TICK)
    world.run(4.0)
    world.p.start_frame()
    world.until(lambda: known(world, "p") and known(world, "s"), 2.0)


def test_the_primary_is_believed_where_it_cannot_hear_the_secondary():
    """The secondary's claims are lost, and the link is cut. The primary is alive and is heard."""
    world = up()
    world.hold("s")
    world.link = False
    world.run(120.0)
    assert (world.p.state, world.s.state) == ("alone", "standby")
    assert world.s.frame.side.ownership.leadership.heard > world.s.now - 1.0
    assert not world.both


def test_the_secondary_is_believed_where_it_cannot_hear_the_primary():
    """The secondary took over by an order. The primary hears this on the LAN and does not write."""
    world = promoted(up())
    world.hold("p")
    world.link = False
    world.run(120.0)
    assert (world.p.state, world.s.state) == ("fenced", "promoted")


@pytest.mark.slow
def test_both_hear_each_other_again_after_hours_without():
    """After so long without hearing each other, neither side knows the difference between the two clocks any more."""
    world = up()
    world.lan = False
    world.link = False
    world.run(4000.0)
    world.lan = True
    world.run(5.0)
    writers = [host.letter for host in world.hosts.values() if host.could_write()]
    assert len(writers) == 1
    assert known(world, "p")
    assert known(world, "s")


def test_a_peer_with_another_secret_lives():
    """An operator error. Both sides hear each other on the link: that is no silence. Logged once a minute."""
    world = up()
    world.p.frame.use_secrets([b"another secret, on one host alone"])
    world.run(10.0)
    assert world.s.state == "standby"
    lines = [log for log in world.s.logs if log.event == "pair.refused"]
    assert len(lines) == 1
    assert lines[0].level == "error"
    assert "secret" in lines[0].fields["why"]


def test_a_secret_is_changed_without_a_moment_without():
    before, after = b"the secret that both have had", b"the secret that both shall have"
    world = up()
    for secrets in ([before], [before, after], [after, before], [after]):
        for host in (world.s, world.p):
            host.frame.use_secrets([*secrets])
            if secrets == [before]:
                world.s.frame.use_secrets(secrets)
                world.p.frame.use_secrets(secrets)
            world.run(3.0)
            assert (world.p.state, world.s.state) == ("holding", "standby")
    assert not [log for log in world.s.logs + world.p.logs if log.event == "pair.refused"]
