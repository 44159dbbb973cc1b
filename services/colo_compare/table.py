"""The table of flows, and which flow a frame belongs to.

The two most frequent shapes of frame (untagged IPv4 without options or fragments, untagged IPv6 without extension
headers) are read here at fixed offsets, because nearly all frames have them and each packet passes here twice. Every
other frame is read by `dissect`, which gives the same keys.
"""

from collections.abc import Callable, Sequence
from struct import Struct
from typing import Final

from colo_compare.arrival import Arrival
from colo_compare.config import CompareConfig
from colo_compare.datagram import DatagramFlow
from colo_compare.errors import ErrorFlow
from colo_compare.exempt import CAUSE, PassedFlow, already_sent
from colo_compare.flow import Flow
from colo_compare.ledger import Ledger
from colo_compare.payload import UNCOMPARED, payload
from colo_compare.tcp.flow import TcpFlow
from colo_compare.unit import Unit
from colo_proto.frame import GSO_UDP_L4, NO_OFFLOAD, Buffer
from colo_proto.net import packet as p
from colo_proto.net.flow import about, tags_of
from colo_proto.net.fragment import Reassembler
from colo_proto.net.offload import to_plain
from colo_proto.rules import DEFAULT, PASS

_V4: Final[Callable[[bytes, int], tuple[int, int, bytes]]] = Struct("!H2xH4x12s").unpack_from
"""Total length; flags and fragment offset; addresses and ports."""
_TCP4: Final[Callable[[bytes, int], tuple[int, int, bytes, int, int, int, int, int]]] = Struct(
    "!H2xH4x12sIIBBH"
).unpack_from
"""The same, and what `_TCP` gives: once instead of twice, because that is slow."""
_TCP6: Final[Callable[[bytes, int], tuple[bytes, int, int, int, int, int]]] = Struct("!36sIIBBH").unpack_from
"""Addresses and ports, and what `_TCP` gives."""
_TCP: Final[Callable[[bytes, int], tuple[int, int, int, int, int]]] = Struct("!IIBBH").unpack_from
"""Sequence and acknowledgement number, data offset (upper half), flags, window."""
_IPV6: Final = b"\x86\xdd"
TCP_KEY: Final = b"\x06"
_UDP_KEY: Final = b"\x11"
"""How the keys of flows begin. Those of untagged packets continue with addresses and ports as the headers have them."""


class Table:
    """The flows of one compare, and the datagrams that are being put together from fragments."""

    def __init__(self, config: CompareConfig, ledger: Ledger) -> None:
        self.ledger = ledger
        self.flows: dict[bytes, Flow] = {}
        """By key."""
        self._max_flows = config.max_flows
        size = config.max_held_mib << 18
        self.fragments = (Reassembler(1024, size, ledger.timeout), Reassembler(1024, size, ledger.timeout))
        """The primary's and the secondary's."""
        self._arrival = Arrival()

    # -- frames --------------------------------------------------------------------------------------

    def receive(self, frames: Sequence[bytes], now: float, *, primary: bool) -> None:
        """Give the frames of one guest to their flows. Errors of a flow are not caught: they are our own."""
        flows, arrival = self.flows, self._arrival
        for frame in list(frames):
            size = len(frame)
            proto = l4 = end = 0
            ends = b""
            if size < 52:
                pass
            elif frame[24] == 0x45 and frame[22] == 8 and not frame[23]:
                proto = frame[33]
                if proto == 6 and size >= 64:
                    length, fragment, ends, seq, ack, off, flags, win = _TCP4(frame, 26)
                    arrival.seq, arrival.ack, arrival.flags, arrival.win = seq, ack, flags, win
                    arrival.data = 44 + (off >> 4 << 2)
                else:
                    length, fragment, ends = _V4(frame, 26)
                if not fragment & 0x3FFF:
                    l4, end = 44, 24 + length
            elif size >= 72 and frame[22:24] == _IPV6 and frame[24] >> 4 == 6:
                proto = frame[30]
                l4, end = 64, 64 + (frame[28] << 8 | frame[29])
                if proto == 6 and size >= 84:
                    ends, seq, ack, off, flags, win = _TCP6(frame, 32)
                    arrival.seq, arrival.ack, arrival.flags, arrival.win = seq, ack, flags, win
                    arrival.data = 64 + (off >> 4 << 2)
                else:
                    ends = frame[32:68]
            if not l4 or end > size:
                self.receive_any(frame, now, primary=primary)
            elif proto == 6 and end >= l4 + 20:
                key = TCP_KEY + ends
                arrival.unit = arrival.buf = frame
                arrival.l4, arrival.end = l4, end
                self._give(flows.get(key) or self._open(key, now), now, primary=primary)
            elif proto == 17 and end >= l4 + 8 and frame[1] != GSO_UDP_L4:
                key = _UDP_KEY + ends
                arrival.unit, arrival.body = frame, frame[l4 + 8 : end]
                self._give(flows.get(key) or self._open(key, now), now, primary=primary)
            else:
                self.receive_any(frame, now, primary=primary)

    def _give(self, flow: Flow, now: float, *, primary: bool) -> None:
        """Give what has arrived to its flow."""
        if flow.shadow:
            if primary:
                self.ledger.passed(self._arrival.unit, CAUSE)
            with already_sent(self.ledger):
                (flow.primary if primary else flow.secondary)(self._arrival, now)
        elif primary:
            flow.primary(self._arrival, now)
        else:
            flow.secondary(self._arrival, now)

    def receive_any(self, frame: bytes, now: float, *, primary: bool) -> None:
        """Any frame, by dissection."""
        packet = p.dissect(frame)
        if packet.kind == p.Kind.IP:
            if frame[1] == GSO_UDP_L4:
                self._segmented(frame, now, primary=primary)
            else:
                self._whole(frame, frame, packet.key, packet.proto, packet.l4, packet.end, now, primary=primary)
        elif packet.kind == p.Kind.FRAGMENT:
            self._fragment(packet, now, primary=primary)
        else:
            self._uncompared(frame, "malformed" if packet.kind == p.Kind.MALFORMED else "pass", primary=primary)

    def _fragment(self, packet: p.Packet, now: float, *, primary: bool) -> None:
        assembler = self.fragments[0 if primary else 1]
        self._hold_fragments(1, primary=primary)
        datagram = assembler.add(packet, now)
        if datagram is not None:
            body = datagram.body
            count = len(datagram.frames)
            self._hold_fragments(-count, primary=primary)
            if not primary:
                self.ledger.secondary_gone(count - 1, "compared")
            self._whole(datagram.frames, body, datagram.key, datagram.proto, 0, len(body), now, primary=primary)
        self._drop_fragments(assembler.dropped(), "fragments", primary=primary)

    def _whole(
        self, unit: Unit, buf: bytes, key: bytes, proto: int, l4: int, end: int, now: float, *, primary: bool
    ) -> None:
        """One whole IP packet: L4 header at `l4` of `buf`, up to `end`."""
        if proto == p.PROTO_TCP:
            if end - l4 < 20:
                self._uncompared(unit, "malformed", primary=primary)
                return
            arrival = self._arrival
            arrival.unit, arrival.buf, arrival.l4, arrival.end = unit, buf, l4, end
            arrival.seq, arrival.ack, off, arrival.flags, arrival.win = _TCP(buf, l4 + 4)
            arrival.data = l4 + (off >> 4 << 2)
        else:
            key, self._arrival.body = payload(key, proto, tags_of(key), buf, l4, end)
            if key == UNCOMPARED:
                self._uncompared(unit, "pass", primary=primary)
                return
            self._arrival.unit = unit
        self._give(self.flows.get(key) or self._open(key, now), now, primary=primary)

    def _segmented(self, frame: bytes, now: float, *, primary: bool) -> None:
        """Several UDP datagrams in one frame (USO). How many is up to the sender, so each is compared by itself."""
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
            self.receive_any(one, now, primary=primary)

    def _uncompared(self, unit: Unit, cause: str, *, primary: bool) -> None:
        if primary:
            self.ledger.passed(unit, cause)
        else:
            self.ledger.secondary_gone(1, cause)

    # -- fragments -----------------------------------------------------------------------------------

    def _hold_fragments(self, count: int, *, primary: bool) -> None:
        """So many more are held."""
        if not primary:
            self.ledger.held_secondary += count
        elif not self.ledger.shadow:
            self.ledger.held += count

    def expire_fragments(self, now: float) -> None:
        """Drop the fragments of datagrams that did not become whole in time."""
        for assembler, primary in zip(self.fragments, (True, False), strict=True):
            assembler.expire(now)
            self._drop_fragments(assembler.dropped(), "fragments", primary=primary)

    def drop_fragments(self, reason: str) -> tuple[int, int]:
        """Drop all fragments. How many they were of the primary and of the secondary."""
        mine, its = (assembler.clear() for assembler in self.fragments)
        return self._drop_fragments(mine, reason, primary=True), self._drop_fragments(its, reason, primary=False)

    def release_fragments(self, cause: str) -> None:
        """Release the fragments of the primary, and drop those of the secondary."""
        ledger = self.ledger
        mine, its = (assembler.clear() for assembler in self.fragments)
        self._hold_fragments(-len(mine), primary=True)
        for frame in mine:
            ledger.passed(frame, cause)
        ledger.secondary_gone(len(its), cause, stored=True)

    def _drop_fragments(self, frames: Sequence[Buffer], reason: str, *, primary: bool) -> int:
        count = len(frames)
        self._hold_fragments(-count, primary=primary)
        if not primary:
            self.ledger.secondary_gone(count, reason)
        elif count and not self.ledger.shadow:
            self.ledger.counters["dropped." + reason] += count
        return count

    # -- flows ---------------------------------------------------------------------------------------

    def _open(self, key: bytes, now: float) -> Flow:
        """A new flow, of the kind that its key and its rule say."""
        if len(self.flows) >= self._max_flows:
            self._evict(now)
        ledger = self.ledger
        rule = ledger.rules.find(key)
        ledger.counters["flows_opened"] += 1
        if rule is not DEFAULT:
            ledger.counters["flows_by_rule." + rule.action] += 1
        flow: Flow
        if rule.action == PASS:
            flow = PassedFlow(ledger, key, rule, now)
        elif key[:1] == TCP_KEY:
            flow = TcpFlow(ledger, key, rule, now)
        else:
            flow = (ErrorFlow if about(key) else DatagramFlow)(ledger, key, rule, now)
        self.flows[key] = flow
        return flow

    def _evict(self, now: float) -> None:
        """Forget an eighth of the table, the least recently used first. (QEMU clears all of it, packets included.)"""
        self.forget_idle(now)
        excess = len(self.flows) - self._max_flows * 7 // 8
        if excess > 0:
            oldest = sorted(self.flows.values(), key=lambda flow: flow.touched)[:excess]
            for flow in oldest:
                self.forget(flow, "evicted")
            self.ledger.counters["flows_evicted"] += len(oldest)

    def ended(self, key: bytes, since: float) -> bool:
        """Has this connection ended, and has nobody sent anything on it since then? It is remembered for a while."""
        flow = self.flows.get(key)
        return isinstance(flow, TcpFlow) and flow.closed and flow.touched <= since

    def forget_idle(self, now: float) -> None:
        """Forget flows that are idle."""
        for flow in list(self.flows.values()):
            if flow.idle_since(now):
                self.forget(flow, "idle")
                self.ledger.counters["flows_expired"] += 1
            else:
                flow.sweep()

    def forget(self, flow: Flow, reason: str) -> None:
        """Drop what a flow holds, and the flow."""
        flow.abandon(reason)
        self.remove(flow)

    def remove(self, flow: Flow) -> None:
        """Take out a flow that holds nothing any more."""
        del self.flows[flow.key]
        self.ledger.forget(flow)

    def adopt(self, key: bytes, now: float) -> Flow:
        """An empty flow for one that is handed over by another worker."""
        present = self.flows.get(key)
        if present is not None:
            self.forget(present, "replaced")
        flow = self._open(key, now)
        # It was counted where it was opened.
        self.ledger.counters["flows_opened"] -= 1
        return flow
