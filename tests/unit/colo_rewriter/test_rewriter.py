"""The core around the tracker: what is not TCP, what is broken, ports, control, bounds, counters."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import craft
from colo_frame.table import make_table
from colo_proto.core import Log, Send, Way
from colo_proto.messages import CheckpointDone, Drain, Promote
from colo_proto.net.packet import Kind, dissect
from colo_rewriter.config import RewriterConfig
from colo_rewriter.rewriter import Rewriter
from rewriting import CLIENT_MAC, FORMS, GUEST_MAC, Play, Seg

OPENED = "client S 100\n guest SA 1500 101\n client A 101 1001 -> ack 1501\n"
C4, G4, C6, G6 = "10.0.0.9", "10.0.0.2", "fd00::9", "fd00::2"
PORTS = {"c": "indev", "g": "netdev"}


def opened(form="v4", **config):
    return Play(form, RewriterConfig(**config)).run(OPENED)


@pytest.mark.parametrize(
    "frame",
    [
        craft.udp(C4, G4, 5000, 80, b"data"),
        craft.udp(C6, G6, 5000, 80, b"data"),
        craft.icmp_echo(C4, G4),
        craft.icmp_echo(C6, G6),
        craft.arp_request(C4, G4),
        craft.rarp_announcement(CLIENT_MAC),
        craft.ethernet(0x88CC, b"lldp"),
        craft.ip(C4, G4, 132, bytes(20)),
        craft.icmp_error(C4, G4, craft.tcp(G4, C4, 80, 5000, 1501, 101, 16)),
        craft.ethernet(0x8100, b"\0"),
        bytes(24),
    ],
)
@pytest.mark.parametrize("port", ["indev", "netdev"])
def test_r14_what_is_not_tcp_passes_as_the_same_object(frame, port):
    core = Rewriter(RewriterConfig())
    send = core.receive(port, [frame], 0.0)[0]
    assert send.port == ("netdev" if port == "indev" else "outdev")
    assert send.frames[0] is frame
    assert core.gauges()["flows"] == 0


@pytest.mark.parametrize("form", FORMS)
def test_r5_r8_without_an_offset_the_same_object_passes(form):
    play = Play(form).run("client S 100\n guest SA 1000 101\n client A 101 1001")
    for side, port in PORTS.items():
        for ports in ((5000, 80), (6000, 80)):
            frame = Seg(side, 24, 101, 1001, 10, ports=ports).frame(form)
            (send,) = play.core.receive(port, [frame], play.now)
            assert send.frames[0] is frame
    assert play.core.counters["rewritten"] == 0
    assert play.core.counters["frames_untracked"] == 2


def test_rb10_what_is_too_short_for_a_frame_is_dropped_and_counted():
    core = Rewriter(RewriterConfig())
    for port in ("indev", "netdev"):
        assert core.receive(port, [b"", b"\0" * 10, b"\0" * 23], 0.0) == []
    assert core.counters["dropped.runt"] == core.counters["frames_in"] == 6


@pytest.mark.parametrize("form", FORMS)
def test_malformed_tcp_passes_untouched_and_is_counted(form):
    play = opened(form)
    whole = Seg("c", 16, 101, 1001, 30).frame(form)
    l4 = dissect(whole).l4
    short_offset = whole[: l4 + 12] + b"\x40" + whole[l4 + 13 :]
    long_offset = whole[: l4 + 12] + b"\xf0" + whole[l4 + 13 :]
    for count, frame in enumerate((whole[: l4 + 12], whole[:-1], short_offset, long_offset), 1):
        play.send(frame, "indev")
        assert play.to_guest.pop() == frame
        assert play.core.counters["malformed"] == count


def test_padding_is_nobodys():
    play = opened()
    play.send(Seg("c", 17, 101, 1001).frame() + bytes(6), "indev")
    assert play.to_guest.pop() == Seg("c", 17, 101, 1501).frame() + bytes(6)
    assert play.flow.client_fin == 102


@pytest.mark.parametrize("family", [4, 6])
def test_rb6_the_first_fragment_is_rewritten_and_the_whole_is_right(family):
    form = f"v{family}"
    play = opened(form)
    for side, want in (("c", {"ack": 1501}), ("g", {"seq": 1001})):
        sent = Seg(side, 24, 1501 if side == "g" else 101, 1001 if side == "c" else 101, 3000)
        parts = craft.fragments(sent.frame(form), 1280)
        assert len(parts) > 2
        for part in parts:
            play.send(part, PORTS[side])
        got = play.to_guest if side == "c" else play.to_client
        whole = dissect(Seg(**{**vars(sent), **want}).frame(form))
        assert b"".join(dissect(part).payload() for part in got) == whole.payload()
        assert [bytes(g) for g in got[1:]] == parts[1:]
        got.clear()
    assert play.core.counters["fragments"] == 6


def test_rb6_a_fragment_too_short_for_the_header_passes_untouched():
    play = opened()
    frame = craft.ip(C4, G4, 6, Seg("c", 16, 101, 1001, ts=(1, 2)).frame()[44:68], more=True)
    play.send(frame, "indev")
    assert play.to_guest == [frame]
    assert dissect(frame).kind == Kind.FRAGMENT


def test_a_fin_in_a_fragment_does_not_end_the_connection():
    """Its place in the stream is not known from the first fragment alone."""
    play = opened()
    for part in craft.fragments(Seg("c", 17, 101, 1001, 3000).frame(), 1280):
        play.send(part, "indev")
    assert play.flow.client_fin is None


def test_connections_of_other_ports_addresses_vlans_and_families_are_apart():
    core = Rewriter(RewriterConfig())
    for form in ("v4", "v4-vlan", "v4-qinq", "v6"):
        for ports in ((5000, 80), (5001, 80), (5000, 81)):
            core.receive("indev", [Seg("c", 2, 100, ports=ports).frame(form)], 0.0)
    assert core.gauges()["flows"] == 12


def test_a_batch_keeps_its_order():
    play = opened()
    batch = [
        Seg("c", 16, 101, 1001).frame(),
        craft.udp(C4, G4, 1, 2),
        Seg("c", 24, 101, 1001, 5, ports=(7777, 80)).frame(),
        Seg("c", 24, 101, 1001, 5).frame(),
        Seg("c", 17, 106, 1001).frame(),
        Seg("c", 16, 107, 1001).frame(),
    ]
    play.take(play.core.receive("indev", batch, play.now))
    assert play.to_guest == [
        Seg("c", 16, 101, 1501).frame(),
        *batch[1:3],
        Seg("c", 24, 101, 1501, 5).frame(),
        Seg("c", 17, 106, 1501).frame(),
        Seg("c", 16, 107, 1501).frame(),
    ]
    assert play.core.counters["rewritten"] == 5


def test_frames_may_be_any_bytes_like_and_are_not_changed():
    play = opened()
    for kind in (bytearray, memoryview):
        raw = bytearray(Seg("c", 16, 101, 1001).frame())
        kept = bytes(raw)
        play.take(play.core.receive("indev", [kind(raw)], play.now))
        assert play.to_guest.pop() == Seg("c", 16, 101, 1501).frame()
        assert bytes(raw) == kept


def test_ports_are_declared():
    assert {port.name: port.way for port in Rewriter.ports} == {
        "indev": Way.IN,
        "netdev": Way.BOTH,
        "outdev": Way.OUT,
        "standby": Way.BOTH,
        "lead_in": Way.IN,
        "lead_out": Way.OUT,
        "claims": Way.OUT,
    }
    with pytest.raises(ValueError, match="outdev"):
        Rewriter(RewriterConfig()).receive("outdev", [], 0.0)


def test_empty_batches_and_strange_messages_do_nothing():
    core = Rewriter(RewriterConfig())
    assert core.receive("indev", [], 0.0) == []
    assert core.tell(Drain(), 0.0) == []
    assert core.on_timer(0.0) == []
    assert core.drain(0.0) == []
    assert core.deadline() is None


# -- control -----------------------------------------------------------------------------------------


def test_promotion_is_logged_once_and_only_of_this_side():
    core = Rewriter(RewriterConfig())
    assert core.tell(Promote(3, side="primary"), 0.0) == []
    assert not core.status()["promoted"]
    (log,) = core.tell(Promote(3), 0.0)
    assert isinstance(log, Log)
    assert (log.event, log.fields["fence"]) == ("rewriter.promoted", 3)
    assert core.tell(Promote(3), 0.0) == []


def test_after_promotion_new_connections_are_not_tracked():
    core = Rewriter(RewriterConfig())
    core.tell(Promote(1), 0.0)
    for side, flags in (("c", 2), ("c", 18), ("g", 2), ("g", 18), ("c", 16), ("g", 16)):
        (send,) = core.receive(PORTS[side], [Seg(side, flags, 5, 6).frame()], 0.0)
        assert len(send.frames) == 1
    assert core.gauges()["flows"] == 0


def test_checkpoints_are_counted_and_status_shows_what_is_shifted():
    play = opened()
    status = play.core.status()
    assert status["flows_shifted"] == 1
    assert status["examples"] == [
        {"flow": "tcp 10.0.0.2:80 > 10.0.0.9:5000", "state": "open", "offset": 500, "ts_offset": 0}
    ]
    play.control("checkpoint copied")
    status = play.core.status()
    assert (status["flows_shifted"], status["checkpoints"]) == (0, 1)
    assert play.core.gauges()["flows"] == 1


def test_a_close_goes_on_after_a_checkpoint_that_copied_state():
    play = opened().run("guest FA 1501 101 -> seq 1001\n checkpoint copied\n client FA 101 1002\n guest A 1002 102")
    assert play.core.gauges()["flows_closed"] == 1


def test_waiting_frames_that_pass_unchanged_are_logged():
    play = Play().run("client S 100\n client A 101 1001 -> held\n at 1s\n out client A 101 1001")
    assert [log.event for log in play.logs] == ["handshake.wait_expired"]


# -- split output ------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["", "?server=on&split=on"])
def test_a_split_output_is_one_output_and_the_link_shares_it_out(split):
    core = Rewriter(RewriterConfig(outdev="ipc:///run/x" + split))
    assert core.tell(make_table(3, ["comp0", "comp1"]), 0.0) == []
    frames = [Seg("g", 16, 1, 2, ports=(port, 80)).frame() for port in range(5000, 5050)]
    assert core.receive("netdev", frames, 0.0) == [Send("outdev", frames)]
    assert core.counters["frames_in"] == core.counters["frames_out"] == 50
    assert "table_version" not in core.gauges()


# -- neighbours --------------------------------------------------------------------------------------


def test_the_guests_question_is_answered_and_still_goes_out():
    play = Play()
    play.send(craft.arp_request(C4, G4, sender_mac=CLIENT_MAC), "indev")
    play.to_guest.clear()
    question = craft.arp_request(G4, C4, sender_mac=GUEST_MAC)
    play.send(question, "netdev")
    assert play.to_client == [question]
    assert play.to_guest == [craft.arp_reply(C4, G4, sender_mac=CLIENT_MAC, target_mac=GUEST_MAC)]
    assert play.core.counters["neighbour_answers"] == 1
    assert play.core.gauges()["neighbours"] == 1


@pytest.mark.parametrize("config", [{}, {"standby": "tap://lan"}])
def test_whoever_talks_is_a_neighbour(config):
    """A rewriter that was restarted has missed how hosts that go on talking found each other."""
    core = Rewriter(RewriterConfig(**config))
    segment = craft.tcp(C4, G4, 5000, 80, 1, 1, 16, b"goes on", macs=(CLIENT_MAC, GUEST_MAC))
    core.receive("indev", [segment], 1.0)
    outputs = core.receive("netdev", [craft.arp_request(G4, C4, sender_mac=GUEST_MAC)], 1.1)
    assert outputs[0] == Send("netdev", [craft.arp_reply(C4, G4, sender_mac=CLIENT_MAC, target_mac=GUEST_MAC)])
    assert core.counters["neighbour_answers"] == 1


@pytest.mark.parametrize("off", ["option", "promotion"])
def test_neighbours_are_not_answered_for_when_off_or_after_promotion(off):
    play = Play(config=RewriterConfig(answer_neighbours=off != "option"))
    play.send(craft.neighbour_solicitation(C6, G6, src_mac=CLIENT_MAC), "indev")
    if off == "promotion":
        play.control("promote")
    play.to_guest.clear()
    play.send(craft.neighbour_solicitation(G6, C6, src_mac=GUEST_MAC), "netdev")
    assert play.to_guest == []
    assert play.core.gauges()["neighbours"] == 0


# -- bounds ------------------------------------------------------------------------------------------


def test_l3_a_flood_of_syns_stays_bounded_and_spares_the_established():
    play = opened(max_flows=256)
    frames = [
        craft.tcp(f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}", G4, 1024 + n % 60000, 80, n, 0, 2)
        for n in range(5000)
    ]
    for at in range(0, len(frames), 64):
        play.take(play.core.receive("indev", frames[at : at + 64], play.now))
    play.to_guest.clear()
    assert play.core.gauges()["flows"] == 256
    assert play.core.counters["flows_evicted"] == 5000 + 1 - 256
    play.run("client PA 101 1001 +4 -> ack 1501\n guest PA 1501 105 +4 -> seq 1001")


MESS = st.lists(
    st.tuples(
        st.sampled_from("cg"),
        st.sampled_from([2, 18, 16, 24, 17, 4, 20, 0, 3, 6, 63]),
        st.sampled_from([0, 1, 100, 101, 102, 1500, 1501, 70000, 2**32 - 1]),
        st.sampled_from([0, 101, 102, 1001, 1002, 1501, 70001]),
        st.sampled_from([0, 1, 10]),
        st.sampled_from([None, (5, 0), (9000, 5), (6, 7000)]),
        st.sampled_from([0.0, 0.1, 1.0, 5.5, 61.0]),
    ),
    max_size=40,
)


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(MESS, st.sampled_from(["", "checkpoint copied", "promote", "checkpoint flushed", "drain"]), st.integers(0, 40))
def test_any_order_of_segments_keeps_the_accounts(mess, word, when):
    play = Play(config=RewriterConfig(hold_frames=4, max_flows=2))
    for index, (side, flags, seq, ack, length, ts, wait) in enumerate(mess):
        if word and index == when:
            play.control(word)
        play.at(play.now - play.start + wait)
        play.send(Seg(side, flags, seq, ack, length, ts, ports=(5000 + index % 3, 80)).frame(), PORTS[side])
        assert play.core.gauges()["flows"] <= 2
    play.at(play.now - play.start + 10000)
    assert play.core.gauges() | {"neighbours": 0} == dict.fromkeys(play.core.gauges(), 0)
    assert play.core.deadline() is None


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.sampled_from(FORMS), st.sampled_from("cg"), st.data())
def test_any_damage_to_a_frame_is_survived(form, side, data):
    play = opened(form)
    frame = bytearray(Seg(side, 24, 101, 1001, 20, ts=(1, 2), sack=((3, 4),)).frame(form))
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(frame)))
    play.send(bytes(frame[:cut]), PORTS[side])
    play.send(bytes(frame), PORTS[side])
    play.core.tell(CheckpointDone(1, state_copied=True), play.now)
