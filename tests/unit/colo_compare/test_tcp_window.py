"""The pair's flow control: the window that leaves never passes the secondary's."""

import pytest

import craft
from checksums import tcp_checksum_ok
from colo_compare.config import CompareConfig
from colo_proto.messages import Mode, SetMode, SetRules
from colo_proto.net.packet import dissect
from colo_proto.net.tcp import ACK, SYN, read32, timestamps_at
from playbook import SYN_OPTIONS, P, Play, S, fields, open_connection, option_kinds, syn


@pytest.fixture
def play():
    return open_connection(Play())


def window(play, at=-1):
    return fields(play.sent[at])[0].window


def stamp(data):
    """TSval of a released segment."""
    packet, (seg, _) = dissect(data), fields(data)
    return read32(data, timestamps_at(data, packet.l4, seg.data))


def lowered(play, seq=1000):
    """The primary offers 1000 << 7, the secondary 100 << 7."""
    play >> S(seq, flags=ACK, window=100) >> P(seq, flags=ACK, window=1000)
    assert window(play) == 100
    return play


def update(play):
    """What compare said by itself last: sequence number, ACK and window field."""
    assert play.core.counters["synthesized"] == 1
    assert tcp_checksum_ok(play.sent[-1])
    seg, payload = fields(play.sent[-1])
    assert (seg.flags, payload) == (ACK, b"")
    return seg.seq, seg.ack, seg.window


def test_edges_never_move_back(play):
    """The secondary's edge is the farthest it ever offered (RFC 9293 §3.8.6: shrinking is for nobody to rely on)."""
    play >> S(1000, flags=ACK, window=400) >> S(1000, flags=ACK, window=10) >> P(1000, flags=ACK, window=300)
    assert window(play) == 300


def test_a_syn_is_lowered_unscaled():
    play = Play()
    play >> syn("P", 999, window=60000) >> syn("S", 7, window=5000)
    assert window(play) == 5000
    assert tcp_checksum_ok(play.sent[0])


def test_an_opening_syn_offers_nothing_yet():
    play = Play()
    p = syn("P", 999, flags=SYN, ack=0, window=60000)
    play >> p >> syn("S", 7, flags=SYN, ack=0, window=5000)
    assert play.released == [p]


def test_without_scaling_windows_are_plain():
    plain = craft.mss(1460)
    play = Play()
    play >> syn("P", 999, opts=plain) >> syn("S", 5, opts=plain)
    play >> S(1000, flags=ACK, window=100) >> P(1000, flags=ACK, window=65535)
    # 500 unscaled in the secondary's SYN/ACK reaches farther than 100 now.
    assert window(play) == 500


def test_adopted_connections_keep_their_windows():
    play = Play()
    p = P(5000, b"x", window=60000)
    play >> p >> S(5000, b"x", window=1)
    assert play.released == [p], "the scale is unknown, so the edges are"


def test_a_small_gain_is_not_announced(play):
    """Receiver-side silly window avoidance."""
    play >> S(1000, flags=ACK, window=100) >> P(1000, flags=ACK, window=1000)
    assert window(play) == 100
    play >> S(1000, flags=ACK, window=101)
    assert len(play.sent) == 1
    play >> S(1000, flags=ACK, window=150)
    assert window(play) == 150
    assert play.core.counters["synthesized"] == 1


def test_a_closed_window_is_opened_again(play):
    """A client that waits for a window update would wait for its persist timer."""
    play >> S(1000, b"x" * 64000, window=0) >> P(1000, b"x" * 64000, ack=64500, window=500)
    assert not play.sent
    play >> S(65000, flags=ACK, ack=64500, window=0)
    assert window(play) == 0
    play >> S(65000, flags=ACK, ack=64500, window=400)
    seg, payload = fields(play.sent[-1])
    assert (seg.window, seg.seq, seg.ack, payload) == (400, 65000, 64500, b"")


def test_a_retransmission_does_not_make_an_update_old(play):
    play >> S(1000, b"abc", window=100) >> P(1000, b"abc", window=1000)
    play >> S(1003, b"def", window=100) >> P(1003, b"def", window=1000) >> P(1000, b"abc", window=1000)
    play >> S(1006, flags=ACK, window=1000)
    assert fields(play.sent[-1])[0].seq == 1006


def test_a_frame_that_lowers_nothing_ends_the_waiting(play):
    play >> S(1000, flags=ACK, window=100) >> P(1000, flags=ACK, window=1000) >> P(1000, flags=ACK, window=90)
    play >> S(1000, flags=ACK, window=1000)
    assert play.core.counters["synthesized"] == 0


def test_shadow_changes_no_window(play):
    play.tell(SetMode(Mode.SHADOW))
    p = P(1000, b"x", window=60000)
    play >> S(1000, b"x", window=1) >> p >> S(1001, flags=ACK, window=60000)
    assert play.released == [p]
    assert play.core.counters["windows_lowered"] == 0


@pytest.mark.parametrize("tags", [(), (5,), (5, 6)])
@pytest.mark.parametrize("ends", [("10.0.0.2", "10.0.0.9"), ("fd00::2", "fd00::9")])
def test_updates_are_right_in_every_family_and_tag(tags, ends):
    play = Play(CompareConfig())
    more = {"tags": tags, "src": ends[0], "dst": ends[1]}
    play >> syn("P", 999, **more) >> syn("S", 5, **more)
    play >> S(1000, b"abc", window=10, **more) >> P(1000, b"abc", window=1000, **more)
    play >> S(1003, flags=ACK, window=1000, **more)
    assert len(play.sent) == 3
    assert all(tcp_checksum_ok(data) for data in play.sent)
    seg, payload = fields(play.sent[-1])
    assert (seg.window, seg.seq, payload) == (1000, 1003, b"")


# -- a lowering that must not be forgotten ----------------------------------------------------------------


@pytest.mark.parametrize("older", [0, 3, 50, 150])
def test_an_older_segment_does_not_end_the_waiting(play, older):
    """What was held says what the primary offered before; the client still waits for what it offers now."""
    play >> S(1000, flags=ACK, window=100) >> P(1000, b"abc", window=older) >> P(1003, flags=ACK, window=1000)
    assert window(play) == 100
    play >> S(1000, b"abc", window=100)
    assert window(play) == min(older, 100)
    play >> S(1003, flags=ACK, window=1000)
    assert update(play) == (1003, 500, 1000)


def test_an_older_ack_does_not_end_the_waiting(play):
    """The same where the older one waited for an ACK, and a retransmission of the secondary's ACK let it go."""
    play >> S(1000, flags=ACK, window=100) >> P(1000, flags=ACK, ack=600, window=0) >> P(1000, flags=ACK, window=1000)
    assert window(play) == 100
    play >> S(1000, flags=ACK, ack=600, window=100) >> P(1000, flags=ACK, ack=600, window=1000)
    play >> S(1000, flags=ACK, ack=600, window=1000)
    assert fields(play.sent[-1])[0].window == 1000


def test_a_head_does_not_end_the_waiting(play):
    """A head repeats the window of the segment that it is a part of."""
    play >> S(1000, flags=ACK, window=100) >> P(1000, b"abcdef", window=3) >> P(1006, flags=ACK, window=1000)
    play >> S(1000, b"abc", window=100)
    play.at(0.1)
    assert fields(play.sent[-1])[1] == b"abc"
    play >> S(1003, flags=ACK, window=1000)
    assert fields(play.sent[-1])[0].window == 1000


def test_what_left_meanwhile_is_not_announced_again(play):
    """The primary's own segment reached as far as the update would: none follows."""
    play >> P(1000, b"abc", window=1000) >> S(1000, flags=ACK, window=100) >> P(1003, flags=ACK, window=1000)
    assert window(play) == 100
    play >> S(1000, b"abc", window=1000)
    assert [fields(data)[0].window for data in play.sent] == [100, 1000]
    play >> S(1003, flags=ACK, window=1000)
    assert play.core.counters["synthesized"] == 0


def test_a_stale_copy_of_an_ack_does_not_end_the_waiting(play):
    """Reordered on the primary's own way: an older ACK says nothing about what is offered now."""
    play >> S(1000, flags=ACK, ack=600, window=100) >> P(1000, flags=ACK, ack=600, window=1000)
    play >> P(1000, flags=ACK, ack=500, window=0) >> S(1000, flags=ACK, ack=600, window=1000)
    assert update(play) == (1000, 600, 1000)


@pytest.mark.parametrize("copied", [True, False])
def test_a_checkpoint_does_not_end_the_waiting(play, copied):
    """With the state copied the secondary offers what the primary does; without, the flow is compared no more."""
    lowered(play) >> P(1000, b"abc", window=1000) >> S(1000, b"xyz", window=100)
    assert play.wanted
    play.done(copied=copied)
    windows = [fields(data)[0].window for data in play.sent]
    assert windows[-1] == 1000


@pytest.mark.parametrize("copied", [True, False])
def test_a_checkpoint_opens_what_was_lowered(play, copied):
    """Nothing that was held says it, so compare has to."""
    lowered(play) >> P(1000, b"abc", window=3) >> P(1003, flags=ACK, window=1000) >> S(1000, b"xyz", window=100)
    play.sent.clear()
    play.core.ledger.released, play.core.ledger.counters["synthesized"] = 0, 0
    play.core.ledger.frames_primary = play.core.gauges()["held"]
    play.done(copied=copied)
    assert update(play) == (1003, 500, 1000)
    assert (play.flushed[0].released, play.flushed[0].dropped) == (1, 0)


def test_a_checkpoint_of_other_flows_leaves_the_lowering(play):
    """Not asked for by this flow, and no state was copied: it goes on being compared."""
    lowered(play).done(copied=False)
    play >> S(1000, flags=ACK, window=1000)
    assert update(play) == (1000, 500, 1000)


@pytest.mark.parametrize("mode", [Mode.SHADOW, Mode.BYPASS])
def test_a_mode_opens_what_was_lowered(play, mode):
    """From now on nobody lowers, and nobody else would tell the client."""
    lowered(play).tell(SetMode(mode))
    assert update(play) == (1000, 500, 1000)


@pytest.mark.parametrize("how", [SetMode(Mode.SHADOW), SetMode(Mode.BYPASS), SetRules("pass tcp guest-port 80")])
def test_what_opens_is_as_new_as_what_was_held(how):
    """What was held leaves first, and the update is no older than that."""
    play = Play()
    options = SYN_OPTIONS + craft.timestamps(1, 0)
    play >> syn("P", 999, opts=options) >> syn("S", 5, opts=options)
    play >> S(1000, flags=ACK, window=100, **stamped(1)) >> P(1000, flags=ACK, window=1000, **stamped(2))
    play >> P(1000, b"abc", window=100, **stamped(3)) >> P(1003, flags=ACK, ack=600, window=1000, **stamped(4))
    play.tell(how)
    stamps = [stamp(data) for data in play.sent]
    assert stamps == sorted(stamps)
    assert [seg.ack + (seg.window << 7) for seg, _ in map(fields, play.sent)][-1] == 600 + 128000


@pytest.mark.parametrize("action", ["pass", "shadow"])
def test_a_rule_opens_what_was_lowered(play, action):
    lowered(play).tell(SetRules(f"{action} tcp guest-port 80"))
    assert update(play) == (1000, 500, 1000)


def test_after_a_lowered_syn_the_update_is_scaled():
    play = Play()
    play >> syn("P", 999, window=60000) >> syn("S", 7, window=5000)
    assert window(play) == 5000
    play >> S(1000, flags=ACK, window=500)
    assert update(play) == (1000, 500, 60000 >> 7)
    assert not option_kinds(play.sent[-1]), "what a SYN negotiates has no place in an ACK"


def test_an_update_is_of_the_stream_that_the_client_has_taken():
    """Of two SYN/ACKs with other numbers (cookies) that were lowered, it took the first, which has the smaller one."""
    play = Play()
    play >> syn("S", 7, window=500) >> syn("P", 999, window=60000) >> syn("P", 9999, window=60000)
    assert [window(play, at) for at in (0, 1)] == [500, 500]
    play >> S(1000, b"abc", window=4) >> P(1000, b"abc", window=1000) >> S(1003, flags=ACK, window=1000)
    assert fields(play.sent[-1])[0].seq == 1003
    assert window(play) == 1000


def test_a_syn_again_that_is_not_lowered_ends_the_waiting():
    play = Play()
    play >> syn("P", 999, window=5000) >> syn("S", 7, window=4000)
    assert window(play) == 4000
    play.core.table.flows[next(iter(play.core.table.flows))].s_edge += 1000
    play >> syn("P", 999, window=5000) >> S(1000, flags=ACK, window=500)
    assert window(play) == 5000
    assert play.core.counters["synthesized"] == 0


def stamped(value):
    return {"options": craft.timestamps(value, 9)}


def test_an_update_is_no_older_than_what_has_left():
    """The client takes a segment with an older stamp than it has seen for a duplicate of old (RFC 7323 §5)."""
    play = Play()
    options = SYN_OPTIONS + craft.timestamps(1, 0)
    play >> syn("P", 999, opts=options) >> syn("S", 5, opts=options)
    play >> S(1000, b"abcdef", window=100, **stamped(1)) >> P(1000, b"abc", window=1000, **stamped(2))
    play >> P(1003, b"def", window=1000, **stamped(2)) >> P(1000, b"abc", window=1000, **stamped(300))
    play >> S(1006, flags=ACK, window=1000, **stamped(2))
    assert update(play) == (1006, 500, 1000)
    assert stamp(play.sent[-1]) == 300


def test_an_update_keeps_the_newest_stamp():
    """And no older one of what leaves late."""
    play = Play()
    options = SYN_OPTIONS + craft.timestamps(1, 0)
    play >> syn("P", 999, opts=options) >> syn("S", 5, opts=options)
    play >> P(1000, b"abc", window=1000, **stamped(0xFFFFFFF0)) >> S(1000, flags=ACK, window=100, **stamped(1))
    play >> P(1003, flags=ACK, window=1000, **stamped(5)) >> S(1000, b"abc", window=100, **stamped(1))
    play >> S(1003, flags=ACK, window=1000, **stamped(2))
    assert update(play) == (1003, 500, 1000)
    assert stamp(play.sent[-1]) == 5


def test_an_update_is_where_the_client_is(play):
    """A sequence number below what the client has is not acceptable, and the update with it (RFC 9293 §3.10.7.4)."""
    play >> S(1000, b"abcdef", window=100) >> P(1000, b"abcdef", window=100) >> P(1000, b"abc", window=1000)
    play >> S(1006, flags=ACK, window=1000)
    assert update(play) == (1006, 500, 1000)


def test_an_update_is_in_the_words_of_the_primary(play):
    """What waits for the secondary's ACK says nothing yet: the update repeats the newest ACK that does not wait."""
    lowered(play) >> P(1000, flags=ACK, ack=13300, window=1000) >> S(1000, flags=ACK, ack=13300, window=0)
    assert window(play) == 0
    play >> P(1000, flags=ACK, ack=13400, window=1000) >> S(1000, flags=ACK, ack=13350, window=1000)
    assert update(play) == (1000, 13300, 1000)


def test_an_update_offers_no_more_than_what_waits_before_it(play):
    """The ACKs in between would take it back (RFC 9293 §3.8.6: edges never move back)."""
    lowered(play) >> P(1000, flags=ACK, ack=600, window=1000) >> P(1000, flags=ACK, ack=700, window=3000)
    for ack in (550, 600, 650, 700):
        play >> S(1000, flags=ACK, ack=ack, window=5000)
    edges = [seg.ack + (seg.window << 7) for seg, _ in map(fields, play.sent)]
    assert len(edges) > 3
    assert edges == sorted(edges)
    assert edges[-1] == 700 + (3000 << 7)


def test_a_stalled_client_hears_of_every_opening():
    """Less than a segment is left to it, so it waits; the secondary has decided that this opening is worth a word."""
    plain = craft.mss(1460)
    play = Play()
    play >> syn("P", 999, opts=plain, window=60000) >> syn("S", 5, opts=plain, window=1000)
    play >> P(1000, flags=ACK, ack=1500, window=60000) >> S(1000, flags=ACK, ack=1500, window=0)
    assert window(play) == 0
    play >> S(1000, flags=ACK, ack=1500, window=700)
    assert fields(play.sent[-1])[0].window == 700
    play >> S(1000, flags=ACK, ack=1500, window=710)
    assert play.core.counters["synthesized"] == 1, "ten bytes more are not worth a word"


def test_an_update_of_an_opener_counts_in_either_reading():
    """Whether the client scales is not known: if it does, what it was told before reaches farther."""
    play = Play()
    opening = {"flags": SYN, "ack": 0, "window": 60000}
    play >> syn("P", 999, **opening) >> syn("S", 7777, **opening)
    play >> S(1000, flags=ACK, ack=1000, window=4118) >> P(1000, flags=ACK, ack=1000, window=16384)
    play >> P(1000, flags=ACK, ack=6544, window=14936) >> S(1000, flags=ACK, ack=6544, window=1448)
    assert window(play) == 1448
    play >> S(1000, flags=ACK, ack=6544, window=4096)
    assert window(play) == 4096


def opened():
    """A connection that the guest has opened, offering to scale its windows. The client's answer is never seen."""
    play = Play()
    opening = {"flags": SYN, "ack": 0, "window": 60000}
    return play >> syn("P", 999, **opening) >> syn("S", 7777, **opening)


@pytest.mark.parametrize("first", ["P", "S"])
def test_an_opener_never_passes_the_secondary_in_either_reading(first):
    """With equal bytes cut alike, whoever is first, and where the scaled windows reach equally far."""
    play = opened()
    play >> S(1000, flags=ACK, ack=1000, window=60000) >> P(1000, flags=ACK, ack=1000, window=50000)
    sides = [P(1000, b"abc", ack=21000, window=42000), S(1000, b"abc", ack=21000, window=40900)]
    for one in sides if first == "P" else reversed(sides):
        play >> one
    seg, payload = fields(play.sent[-1])
    assert (seg.ack, seg.window, payload) == (21000, 40900, b"abc")


def test_an_update_of_an_opener_offers_no_more_than_the_primary_in_either_reading():
    """What the primary sent since waits for the secondary. When it leaves, the window may not move back, be windows
    scaled or not. So the update is a pair of ACK and window that the primary has sent, not one between two of them.
    """
    play = opened()
    play >> S(1000, flags=ACK, ack=1000, window=2524) >> P(1000, flags=ACK, ack=1000, window=2524)
    play >> S(1000, flags=ACK, ack=2048, window=1476) >> P(1000, flags=ACK, ack=2048, window=2524)
    assert window(play) == 1476
    play >> P(1000, flags=ACK, ack=3096, window=1476) >> S(1000, flags=ACK, ack=2572, window=4096)
    assert update(play) == (1000, 2048, 2524)
    play >> S(1000, flags=ACK, ack=3096, window=4096)
    assert fields(play.sent[-1])[0].ack == 3096
    assert window(play) == 1476


# -- another secondary than before ------------------------------------------------------------------------


def test_what_a_secondary_offered_before_the_checkpoint_is_void():
    """The primary's SYN got lost on its way here, then the secondary became its copy, with a smaller window."""
    play = Play()
    play >> syn("S", 7777, window=60000)
    play.done(copied=True)
    play >> syn("P", 999, window=4000)
    assert not play.sent
    play >> syn("S", 999, window=4000)
    assert window(play) == 4000
    play >> P(1000, flags=ACK, window=500)
    assert window(play) == 4000 >> 7


def test_where_a_secondary_was_before_the_checkpoint_is_void():
    """The same from the middle of a connection: its copy stands where the primary does."""
    play = Play()
    play >> S(9000, b"later", window=60000)
    play.done(copied=True)
    play >> P(1000, b"abc") >> S(1000, b"abc")
    assert [fields(data)[1] for data in play.sent] == [b"abc"]


def test_a_checkpoint_settles_how_windows_are_scaled():
    """The options differed; now the secondary is a copy, and its windows are scaled like the primary's."""
    play = Play()
    play >> syn("P", 999, window=4000) >> syn("S", 7, opts=craft.mss(1460), window=4000)
    assert play.wanted
    play.done(copied=True)
    play >> S(1000, flags=ACK, window=10) >> P(1000, flags=ACK, window=500)
    assert window(play) == 4000 >> 7


def test_a_secondary_that_acknowledges_far_more_moves_no_ack(play):
    """The update says what the primary has said, and the edge is one that both have offered."""
    play >> S(1000, flags=ACK, ack=500, window=100) >> P(1000, flags=ACK, ack=500, window=1000)
    play >> P(1000, flags=ACK, ack=250_000, window=1000)
    play >> S(1000, flags=ACK, ack=200_000, window=100)
    assert update(play) == (1000, 500, 1000)
    play >> S(1000, flags=ACK, ack=250_000, window=2000)
    assert fields(play.sent[-1])[0].ack == 250_000 & 0xFFFFFFFF
    assert window(play) == 1000


def test_a_primary_that_has_closed_its_window_is_not_reopened(play):
    lowered(play) >> P(1000, flags=ACK, window=0) >> S(1000, flags=ACK, window=2000)
    assert window(play) == 0
    assert play.core.counters["synthesized"] == 0
