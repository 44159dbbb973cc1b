"""Broken cores, by role. Each must be found, or the simulation proves nothing.

Every mutant breaks only one rule, so it is found by the invariant behind that rule. The rule is broken only while the
mutant runs; other cores in the same process are intact.
"""

from colo_compare.compare import Compare
from colo_compare.datagram import DatagramFlow
from colo_compare.tcp import commit, control, departure, opening, partial, window
from colo_compare.tcp.flow import TcpFlow
from colo_mirror.mirror import Mirror
from colo_proto.checksum import internet_checksum, pseudo_sum, update
from colo_proto.core import Send
from colo_proto.messages import Reason
from colo_proto.net.packet import dissect
from colo_proto.net.tcp import FIN
from colo_rewriter import established, passage
from colo_rewriter.flow import opposite
from colo_rewriter.handshake import Handshakes
from colo_rewriter.rewriter import Rewriter

_FOR_EVER = 1 << 62
_PRIMARY, _SECONDARY_SAYS = TcpFlow.primary, window.secondary_says
_PRIMARY_DATAGRAM, _SECONDARY_DATAGRAM = DatagramFlow.primary, DatagramFlow.secondary
_DIVERGE, _HALF_EQUAL = commit._diverge, partial._half_equal
_TOWARD_GUEST, _CLIENT_SYN = passage.toward_guest, Handshakes.client_syn


def broken(core, *changes):
    """A subclass of `core`. While it runs, other functions are in place: (owner, name, function)."""

    def within(method):
        def call(self, *arguments):
            kept = [(owner, name, getattr(owner, name)) for owner, name, _ in changes]
            for owner, name, function in changes:
                setattr(owner, name, function)
            try:
                return getattr(core, method)(self, *arguments)
            finally:
                for owner, name, function in kept:
                    setattr(owner, name, function)

        return call

    return type("Broken", (core,), {method: within(method) for method in ("receive", "on_timer", "tell")})


def everywhere(name, function):
    """Changes of a function in all modules of compare's TCP that use it."""
    return [(module, name, function) for module in (window, partial, commit, opening, control) if hasattr(module, name)]


class _Any(bytes):
    """Bytes that are equal to all others of their length."""

    def __eq__(self, other):
        return len(self) == len(other)

    def __ne__(self, other):
        return len(self) != len(other)

    __hash__ = bytes.__hash__

    def __getitem__(self, at):
        found = super().__getitem__(at)
        return _Any(found) if isinstance(at, slice) else found


def _lengths_alone(self, arrival, now):
    arrival.buf = _Any(arrival.buf)
    return _PRIMARY(self, arrival, now)


def _every_ack(flow, wire_ack, win):
    moved = _SECONDARY_SAYS(flow, wire_ack, win)
    flow.s_ack = _FOR_EVER
    return moved


def _no_fin(self, arrival, now):
    if arrival.flags & FIN:
        buf, l4 = bytearray(arrival.buf), arrival.l4
        buf[l4 + 13] &= ~FIN & 0xFF
        if not buf[0] & 1:
            csum = update(int.from_bytes(buf[l4 + 16 : l4 + 18], "big"), -FIN)
            buf[l4 + 16 : l4 + 18] = csum.to_bytes(2, "big")
        arrival.buf = bytes(buf)
        arrival.flags &= ~FIN
    return _PRIMARY(self, arrival, now)


def _differs(flow, now):
    flow.diverged = True
    flow.ledger.counters["miscompares"] += 1
    flow.ledger.want(flow, Reason.DATAGRAM, flow.count, {}, now)


def _newest_of_secondary(self, arrival, now):
    if self.sec and self.sec[-1][0] != arrival.body and not (self.diverged or self.unprotected):
        _differs(self, now)
    _PRIMARY_DATAGRAM(self, arrival, now)


def _newest_of_primary(self, arrival, now):
    if self.pri and self.pri[-1].body != arrival.body and not (self.diverged or self.unprotected):
        _differs(self, now)
    _SECONDARY_DATAGRAM(self, arrival, now)


def _any_window(flow, unit, *_):
    flow.ledger.sink.append(unit)


def _nothing(*_):
    pass


def _ends_wait(flow, reason, *more):
    """That one stream ends where the other goes on is left to `compare_timeout`."""
    if reason != Reason.FIN:
        _DIVERGE(flow, reason, *more)


def _heads_again(flow):
    """What has left is not remembered."""
    for held in flow.data:
        held.left = held.start
    return _HALF_EQUAL(flow)


def _stamp_stays(frame, *_):
    return frame


def _any_syn(self, flow, arrival, now):
    """Whoever sends a SYN begins a new connection."""
    if flow.client_isn not in (None, arrival.segment.seq):
        self.forget(flow)
        flow = self.open(arrival.key, opposite(arrival.key), now)
    _CLIENT_SYN(self, flow, arrival, now)


def _numbers_alone(frame, l4, data, flags, flow):
    """Translate the ACK, but not SACK edges and TSecr; the checksum is right, so that it does not reveal this."""
    out = bytearray(_TOWARD_GUEST(frame, l4, data, flags, flow))
    out[l4 + 20 : data] = frame[l4 + 20 : data]
    packet = dissect(bytes(out))
    if not out[0] & 1:
        out[l4 + 16 : l4 + 18] = b"\0\0"
        start = pseudo_sum(packet.src, packet.dst, packet.proto, packet.end - l4)
        out[l4 + 16 : l4 + 18] = internet_checksum(out[l4 : packet.end], start).to_bytes(2, "big")
    return bytes(out)


class Forgetful(Mirror):
    """Lose every tenth copy silently, as a mirror link without replay."""

    def receive(self, port, frames, now):
        before = self.counters["frames"]
        first, copy = super().receive(port, frames, now)
        kept = [frame for at, frame in enumerate(copy.frames, before) if at % 10 != 9]
        return [first, Send("outdev", kept)] if kept else [first]


MUTANTS = {
    "equal_length": {"compare": broken(Compare, (TcpFlow, "primary", _lengths_alone))},
    "no_ack_rule": {
        "compare": broken(Compare, (window, "secondary_says", _every_ack), (control, "secondary_says", _every_ack))
    },
    "udp_newest_first": {
        "compare": broken(
            Compare, (DatagramFlow, "primary", _newest_of_secondary), (DatagramFlow, "secondary", _newest_of_primary)
        )
    },
    "fin_is_nothing": {"compare": broken(Compare, (TcpFlow, "primary", _no_fin))},
    "no_window_clamp": {"compare": broken(Compare, *everywhere("emit", _any_window))},
    "windows_stay_lowered": {"compare": broken(Compare, *everywhere("reopen", _nothing))},
    "ends_wait": {"compare": broken(Compare, (commit, "_diverge", _ends_wait))},
    "heads_again": {"compare": broken(Compare, (partial, "_half_equal", _heads_again))},
    "stamps_stay": {"compare": broken(Compare, (departure, "with_tsval", _stamp_stays))},
    "any_syn_opens": {"rewriter": broken(Rewriter, (Handshakes, "client_syn", _any_syn))},
    "no_options_shift": {
        "rewriter": broken(
            Rewriter, (passage, "toward_guest", _numbers_alone), (established, "toward_guest", _numbers_alone)
        )
    },
    "mirror_forgets": {"mirror": Forgetful},
}
"""Name -> makers of cores by role."""
