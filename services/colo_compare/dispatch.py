"""Frames to flows: which flow a frame belongs to, and the table of them.

Two shapes of frame are known by heart (untagged IPv4 without options or fragments, untagged IPv6 without extension
headers) because nearly all frames have them and every microsecond is paid twice a packet; everything else goes through
`dissect`, which gives the same keys.
"""

from collections.abc import Callable, Iterable, Sequence
from struct import Struct
from typing import Any, Final

from colo_compare.config import CompareConfig
from colo_compare.datagram import DatagramFlow
from colo_compare.errors import ErrorFlow
from colo_compare.exempt import PassedDatagrams, PassedTcp, WatchedDatagrams, WatchedErrors, WatchedTcp
from colo_compare.flow import Datagrams, Flow, Stream, Unit
from colo_compare.ledger import Ledger
from colo_compare.payload import UNCOMPARED, payload
from colo_compare.tcp import TcpFlow
from colo_proto.frame import GSO_UDP_L4, NO_OFFLOAD, Buffer
from colo_proto.net import packet as p
from colo_proto.net.flow import about, tags_of
from colo_proto.net.fragment import Reassembler
from colo_proto.net.offload import to_plain
from colo_proto.rules import COMPARE, DEFAULT, PASS, SHADOW, Rule

_V4: Final[Callable[[bytes, int], tuple[bytes, int, int, int, bytes]]] = Struct("!3sxH2xHxB2x12s").unpack_from
"""EtherType, version and header length; total length; flags and fragment offset; protocol; addresses and ports."""
_TCP4: Final[Callable[[bytes, int], tuple[bytes, int, int, bytes, int, int, int, int, int]]] = Struct(
    "!3sxH2xH4x12sIIBBH"
).unpack_from
"""The same, but for the protocol, which is known; then what `_TCP` gives. Once instead of twice, for that is slow."""
_TCP6: Final[Callable[[bytes, int], tuple[int, bytes, int, int, int, int, int]]] = Struct("!H2x36sIIBBH").unpack_from
"""Payload length; addresses and ports; what `_TCP` gives."""
_TCP: Final[Callable[[bytes, int], tuple[int, int, int, int, int]]] = Struct("!IIBBH").unpack_from
"""Sequence and acknowledgement number, data offset (upper half), flags, window."""
_IPV4: Final = b"\x08\x00\x45"
_IPV6: Final = b"\x86\xdd"
_TCP_KEY, _UDP_KEY = b"\x06", b"\x11"
"""How keys begin."""

_STREAM: dict[str, Callable[[Ledger, bytes, Rule, float], Stream]] = {
    COMPARE: TcpFlow, PASS: PassedTcp, SHADOW: WatchedTcp,
}  # fmt: skip
_DATAGRAMS: dict[str, Callable[[Ledger, bytes, Rule, float], Datagrams]] = {
    COMPARE: DatagramFlow, PASS: PassedDatagrams, SHADOW: WatchedDatagrams,
}  # fmt: skip
_ERRORS: dict[str, Callable[[Ledger, bytes, Rule, float], Datagrams]] = {
    COMPARE: ErrorFlow, PASS: PassedDatagrams, SHADOW: WatchedErrors,
}  # fmt: skip
"""What becomes of a flow, by the action of its rule."""


class Dispatch:
    """The flows of one compare, and the books they share."""

    def __init__(self, config: CompareConfig) -> None:
        self.config = config
        self.ledger = Ledger(config)
        self.flows: dict[bytes, Flow] = {}
        """All of them, by key."""
        self.streams: dict[bytes, Stream] = {}
        self.datagrams: dict[bytes, Datagrams] = {}
        """TCP's and UDP's without tags once more, by addresses and ports alone: what the commonest frames look for."""
        self.next_scan: float | None = None
        self.timeout = config.compare_timeout / 1000
        self.cycle = config.expired_scan_cycle / 1000
        size = config.max_held_mib << 18
        self.fragments = (Reassembler(1024, size, self.timeout), Reassembler(1024, size, self.timeout))

    # -- frames --------------------------------------------------------------------------------------

    def _take(self, frames: Sequence[bytes], now: float, *, primary: bool) -> None:
        """Frames of one guest to their flows. Nothing is caught here: what fails in a flow is our own error."""
        streams, datagrams = self.streams, self.datagrams
        for frame in list(frames):
            size = len(frame)
            if size >= 64 and frame[33] == 6:
                head, length, fragment, ends, seq, ack, off, flags, win = _TCP4(frame, 22)
                end = 24 + length
                if head == _IPV4 and not fragment & 0x3FFF and 64 <= end <= size:
                    flow = streams.get(ends) or self._open_stream(ends, now)
                    if primary:
                        flow.primary(frame, frame, 44, end, seq, ack, off, flags, win, now)
                    else:
                        flow.secondary(frame, 44, end, seq, ack, off, flags, win, now)
                    continue
            elif size >= 52:
                head, length, fragment, proto, ends = _V4(frame, 22)
                end = 24 + length
                if (
                    head == _IPV4
                    and proto == 17
                    and not fragment & 0x3FFF
                    and 52 <= end <= size
                    and frame[1] != GSO_UDP_L4
                ):
                    packets = datagrams.get(ends) or self._open_datagrams(ends, now)
                    if primary:
                        packets.primary(frame, frame[52:end], now)
                    else:
                        packets.secondary(frame, frame[52:end], now)
                    continue
            if size >= 72 and frame[22:24] == _IPV6 and frame[24] >> 4 == 6:
                proto = frame[30]
                if proto == 6 and size >= 84:
                    length, ends, seq, ack, off, flags, win = _TCP6(frame, 28)
                    end = 64 + length
                    if 84 <= end <= size:
                        flow = streams.get(ends) or self._open_stream(ends, now)
                        if primary:
                            flow.primary(frame, frame, 64, end, seq, ack, off, flags, win, now)
                        else:
                            flow.secondary(frame, 64, end, seq, ack, off, flags, win, now)
                        continue
                elif proto == 17 and frame[1] != GSO_UDP_L4:
                    end = 64 + (frame[28] << 8 | frame[29])
                    if 72 <= end <= size:
                        ends = frame[32:68]
                        packets = datagrams.get(ends) or self._open_datagrams(ends, now)
                        if primary:
                            packets.primary(frame, frame[72:end], now)
                        else:
                            packets.secondary(frame, frame[72:end], now)
                        continue
            self._slow(frame, now, primary=primary)

    def _slow(self, frame: bytes, now: float, *, primary: bool) -> None:
        """Any frame, by dissection."""
        packet = p.dissect(frame)
        if packet.kind == p.Kind.IP:
            if frame[1] == GSO_UDP_L4:
                self._segmented(frame, now, primary=primary)
                return
            self._whole(frame, frame, packet.key, packet.proto, packet.l4, packet.end, now, primary=primary)
        elif packet.kind == p.Kind.FRAGMENT:
            assembler = self.fragments[0 if primary else 1]
            if not primary:
                self.ledger.held_secondary += 1
            elif not self.ledger.shadow:
                self.ledger.held += 1
            datagram = assembler.add(packet, now)
            if datagram is not None:
                body = datagram.body
                count = len(datagram.frames)
                if primary:
                    self.ledger.held -= 0 if self.ledger.shadow else count
                else:
                    self.ledger.held_secondary -= count
                    self.ledger.secondary_gone(count - 1, "compared")
                self._whole(datagram.frames, body, datagram.key, datagram.proto, 0, len(body), now, primary=primary)
            self._collect(assembler.dropped(), "fragments", primary=primary)
        else:
            cause = "malformed" if packet.kind == p.Kind.MALFORMED else "pass"
            self._uncompared(frame, cause, primary=primary)

    def _whole(
        self, unit: Unit, buf: bytes, key: bytes, proto: int, l4: int, end: int, now: float, *, primary: bool
    ) -> None:
        """One whole IP packet: L4 header at `l4` of `buf`, up to `end`."""
        if proto == p.PROTO_TCP:
            if end - l4 < 20:
                self._uncompared(unit, "malformed", primary=primary)
                return
            stream = self._stream(key, now)
            seq, ack, off, flags, win = _TCP(buf, l4 + 4)
            if primary:
                stream.primary(unit, buf, l4, end, seq, ack, off, flags, win, now)
            else:
                stream.secondary(buf, l4, end, seq, ack, off, flags, win, now)
            return
        key, body = payload(key, proto, tags_of(key), buf, l4, end)
        if key == UNCOMPARED:
            self._uncompared(unit, "pass", primary=primary)
            return
        packets = self._packets(key, now)
        if primary:
            packets.primary(unit, body, now)
        else:
            packets.secondary(unit, body, now)

    def _segmented(self, frame: bytes, now: float, *, primary: bool) -> None:
        """Several UDP datagrams in one frame (USO): how many is the sender's affair, so each is compared by itself."""
        ledger = self.ledger
        plain = [NO_OFFLOAD + one for one in to_plain(frame)]
        if not plain:
            self._uncompared(frame, "malformed", primary=primary)
            return
        more = len(plain) - 1
        if not primary:
            ledger.frames_secondary += more
        elif not ledger.shadow:
            ledger.frames_primary += more
        for one in plain:
            self._slow(one, now, primary=primary)

    def _uncompared(self, unit: Unit, cause: str, *, primary: bool) -> None:
        if primary:
            self.ledger.passed(unit, cause)
        else:
            self.ledger.secondary_gone(1, cause)

    def _collect(self, frames: Iterable[Buffer], reason: str, *, primary: bool) -> None:
        """Fragments that will never be whole."""
        count = len(list(frames))
        if count and primary:
            if not self.ledger.shadow:
                self.ledger.held -= count
                self.ledger.counters["dropped." + reason] += count
        elif count:
            self.ledger.secondary_gone(count, reason, stored=True)

    # -- flows ---------------------------------------------------------------------------------------

    def _open_stream(self, ends: bytes, now: float) -> Stream:
        """The connection between `ends`, which had no frame of the commonest shape yet."""
        flow = self.streams[ends] = self._stream(_TCP_KEY + ends, now)
        return flow

    def _open_datagrams(self, ends: bytes, now: float) -> Datagrams:
        flow = self.datagrams[ends] = self._packets(_UDP_KEY + ends, now)
        return flow

    def _stream(self, key: bytes, now: float) -> Stream:
        flow: Any = self.flows.get(key)
        if flow is None:
            rule = self._admit(key, now)
            flow = self.flows[key] = _STREAM[rule.action](self.ledger, key, rule, now)
        found: Stream = flow
        return found

    def _packets(self, key: bytes, now: float) -> Datagrams:
        flow: Any = self.flows.get(key)
        if flow is None:
            rule = self._admit(key, now)
            kinds = _ERRORS if about(key) else _DATAGRAMS
            flow = self.flows[key] = kinds[rule.action](self.ledger, key, rule, now)
        found: Datagrams = flow
        return found

    def _admit(self, key: bytes, now: float) -> Rule:
        """Make room for a new flow; the rule that it is under."""
        if len(self.flows) >= self.config.max_flows:
            self._evict(now)
        ledger = self.ledger
        rule = ledger.rules.find(key)
        ledger.counters["flows_opened"] += 1
        if rule is not DEFAULT:
            ledger.counters["flows_by_rule." + rule.action] += 1
        return rule

    def _evict(self, now: float) -> None:
        """Make room: an eighth of the table, least recently used first (QEMU clears it, packets and all)."""
        self._forget_idle(now)
        excess = len(self.flows) - self.config.max_flows * 7 // 8
        if excess > 0:
            oldest = sorted(self.flows.values(), key=lambda flow: flow.touched)[:excess]
            for flow in oldest:
                self.forget(flow, "evicted")
            self.ledger.counters["flows_evicted"] += len(oldest)

    def forget(self, flow: Flow, reason: str) -> None:
        """Drop what a flow holds, and the flow."""
        flow.abandon(reason)
        self.release(flow)

    def release(self, flow: Flow) -> None:
        """Let go of a flow that holds nothing any more."""
        ledger = self.ledger
        key = flow.key
        del self.flows[key]
        if key[:1] == _TCP_KEY:
            self.streams.pop(key[1:], None)
        elif key[:1] == _UDP_KEY:
            self.datagrams.pop(key[1:], None)
        for table in (ledger.holding, ledger.lingering, ledger.asked, ledger.suspects, ledger.stuck):
            table.pop(flow, None)
        ledger.unprotected.discard(key)
        ledger.unjudged.discard(key)

    def adopt(self, key: bytes, now: float, *, stream: bool) -> Flow:
        """An empty flow for one that comes from another worker."""
        had = self.flows.get(key)
        if had is not None:
            self.forget(had, "replaced")
        flow: Flow = self._stream(key, now) if stream else self._packets(key, now)
        # It was counted where it was opened.
        self.ledger.counters["flows_opened"] -= 1
        self.next_scan = self.next_scan or now + self.cycle
        return flow

    def again(self, frame: bytes, now: float, *, primary: bool) -> None:
        """A fragment that another worker had begun to put together with others."""
        self._slow(frame, now, primary=primary)

    def _forget_idle(self, now: float) -> None:
        for flow in list(self.flows.values()):
            if flow.idle_since(now):
                self.forget(flow, "idle")
                self.ledger.counters["flows_expired"] += 1
            else:
                flow.sweep()
