"""Broken cores, by role. Each must be found, or the simulation proves nothing.

Every mutant breaks only one rule, so it is found by the invariant behind that rule. The rule is broken only while the
mutant runs; other cores in the same process are intact.
"""

from colo_compare import tcp_leaving
from colo_compare.compare import Compare
from colo_compare.datagram import DatagramFlow
from colo_compare.tcp import TcpFlow
from colo_compare.tcp_commit import TcpCommit
from colo_compare.tcp_window import TcpWindow
from colo_mirror.mirror import Mirror
from colo_proto.checksum import internet_checksum, pseudo_sum, update16
from colo_proto.core import Send
from colo_proto.messages import Reason
from colo_proto.net.packet import dissect
from colo_proto.net.tcp import FIN
from colo_rewriter import passage, tracker
from colo_rewriter.flow import opposite
from colo_rewriter.rewriter import Rewriter
from colo_rewriter.tracker import Tracker

_FOR_EVER = 1 << 62
_PRIMARY, _S_ACKS = TcpFlow.primary, TcpFlow._s_acks
_PRIMARY_DATAGRAM, _SECONDARY_DATAGRAM = DatagramFlow.primary, DatagramFlow.secondary
_DIVERGE, _LET_HEAD_GO = TcpCommit._diverge, TcpCommit._let_head_go
_TOWARD_GUEST, _CLIENT_SYN = passage.toward_guest, Tracker._client_syn


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


def _lengths_alone(self, unit, buf, *more):
    return _PRIMARY(self, unit, _Any(buf), *more)


def _every_ack(self, wire_ack, win):
    moved = _S_ACKS(self, wire_ack, win)
    self.s_ack = _FOR_EVER
    return moved


def _no_fin(self, unit, buf, l4, end, seq, ack, off, flags, *more):
    if flags & FIN:
        buf = bytearray(buf)
        buf[l4 + 13] &= ~FIN & 0xFF
        if not buf[0] & 1:
            csum = update16(int.from_bytes(buf[l4 + 16 : l4 + 18], "big"), FIN, 0)
            buf[l4 + 16 : l4 + 18] = csum.to_bytes(2, "big")
        buf = bytes(buf)
    return _PRIMARY(self, unit, buf, l4, end, seq, ack, off, flags & ~FIN, *more)


def _differs(flow, now):
    flow.diverged = True
    flow.ledger.counters["miscompares"] += 1
    flow.ledger.want(flow, Reason.DATAGRAM, flow.count, {}, now)


def _newest_of_secondary(self, unit, body, now):
    if self.sec and self.sec[-1][0] != body and not (self.diverged or self.unprotected):
        _differs(self, now)
    _PRIMARY_DATAGRAM(self, unit, body, now)


def _newest_of_primary(self, unit, body, now):
    if self.pri and self.pri[-1].body != body and not (self.diverged or self.unprotected):
        _differs(self, now)
    _SECONDARY_DATAGRAM(self, unit, body, now)


def _any_window(self, unit, *_):
    self.ledger.sink.append(unit)


def _nothing(self, *_):
    pass


def _ends_wait(self, reason, *more):
    """If one stream ends where the other continues, this is only noticed by `compare_timeout`."""
    if reason != Reason.FIN:
        _DIVERGE(self, reason, *more)


def _heads_again(self, *place):
    """Forget what has been released."""
    for held in self.data:
        held.gone = held.start
    _LET_HEAD_GO(self, *place)


def _stamp_stays(frame, *_):
    return frame


def _any_syn(self, flow, arrival, now, to_guest):
    """Every SYN begins a new connection."""
    if flow.client_isn not in (None, arrival.segment.seq):
        self._forget(flow, to_guest)
        flow = self._open(arrival.key, opposite(arrival.key), now, to_guest)
    _CLIENT_SYN(self, flow, arrival, now, to_guest)


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
    "no_ack_rule": {"compare": broken(Compare, (TcpFlow, "_s_acks", _every_ack))},
    "udp_newest_first": {
        "compare": broken(
            Compare, (DatagramFlow, "primary", _newest_of_secondary), (DatagramFlow, "secondary", _newest_of_primary)
        )
    },
    "fin_is_nothing": {"compare": broken(Compare, (TcpFlow, "primary", _no_fin))},
    "no_window_clamp": {"compare": broken(Compare, (TcpWindow, "_emit", _any_window))},
    "windows_stay_lowered": {"compare": broken(Compare, (TcpWindow, "_reopen", _nothing))},
    "ends_wait": {"compare": broken(Compare, (TcpCommit, "_diverge", _ends_wait))},
    "heads_again": {"compare": broken(Compare, (TcpCommit, "_let_head_go", _heads_again))},
    "stamps_stay": {"compare": broken(Compare, (tcp_leaving, "with_tsval", _stamp_stays))},
    "any_syn_opens": {"rewriter": broken(Rewriter, (Tracker, "_client_syn", _any_syn))},
    "no_options_shift": {
        "rewriter": broken(
            Rewriter, (passage, "toward_guest", _numbers_alone), (tracker, "toward_guest", _numbers_alone)
        )
    },
    "mirror_forgets": {"mirror": Forgetful},
}
"""Name -> makers of cores by role."""
