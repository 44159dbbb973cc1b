"""Shares a port's output out to workers by flow, so that each worker sees whole flows.

The reasons are in `docs/design.md`, "Sharing out to workers".

::

    frame -> flow key -> keyed hash -> slot (1 of 1,024) -> worker table -> worker

Both guests' frames of a flow must reach the same worker, whichever process shares them out. So slots and table are the
same everywhere: the COLO frame makes the table and gives it a version. ZeroMQ's own PUSH to many PULLs would not do: it
distributes round robin, and would cut flows apart.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from colo_proto.frame import Buffer
from colo_proto.messages import WorkerTable
from colo_proto.net import packet as p
from colo_proto.net.flow import SLOTS, about, slot

CACHE: Final = 65536
"""Flow keys whose worker is remembered. The cache is emptied when it is full; to find a slot takes microseconds."""
FRAGMENTS: Final = 1024
"""Datagrams whose later fragments are expected; the oldest one is forgotten first."""

KEYLESS: Final = 0
"""ARP and frames that are not IP belong to no flow: all of them go to the worker of this slot."""


class Slots:
    """The slot of every frame of one direction, in the order they come."""

    def __init__(self) -> None:
        self._fragments: OrderedDict[tuple[bytes, bytes, int, int, bytes], int] = OrderedDict()

    def of(self, frame: Buffer, unknown: int | None = None) -> int:
        """The slot of any frame, by dissection.

        Fragments follow their first one, which alone has ports. One that comes earlier goes by its addresses, or gets
        `unknown`.
        """
        packet = p.dissect(frame)
        if packet.kind == p.Kind.FRAGMENT:
            return self._fragment(packet, unknown)
        return slot_of(inner_key(packet) or packet.key)

    def _fragment(self, packet: p.Packet, unknown: int | None) -> int:
        datagram = (packet.src, packet.dst, packet.proto, packet.ident, packet.tags)
        known = self._fragments
        if packet.frag_offset and datagram in known:
            return known[datagram]
        if packet.frag_offset and unknown is not None:
            return unknown
        found = slot_of(packet.key)
        if not packet.frag_offset:
            known[datagram] = found
            if len(known) > FRAGMENTS:
                known.popitem(last=False)
        return found


def slot_of(key: bytes) -> int:
    """The slot of a flow, by its key. An ICMP error has the slot of the flow that it is about."""
    return slot(about(key) or key) if key else KEYLESS


class Splitter:
    """Sorts frames by worker, as the worker table says."""

    def __init__(self) -> None:
        self.version = -1
        self.workers: list[str] = []
        self._slots: list[int] = []
        self._cache: dict[bytes, str] = {}
        self._slow = Slots()

    def table(self, table: WorkerTable) -> bool:
        """Use this worker table if it is valid and newer than the present one. True when it is used."""
        if table.version <= self.version or len(table.slots) != SLOTS or not table.workers:
            return False
        if not all(0 <= index < len(table.workers) for index in table.slots):
            return False
        self.version, self.workers, self._slots = table.version, list(table.workers), list(table.slots)
        self._cache.clear()
        return True

    def split(self, frames: Sequence[Buffer]) -> dict[str, list[Buffer]]:
        """`frames` by worker id, each worker's in order. Empty when no table is known."""
        shares: dict[str, list[Buffer]] = {}
        if not self._slots:
            return shares
        for frame in frames:
            head = frame if type(frame) is bytes else bytes(frame[: p.GLANCE])
            proto, l4, _, ends = p.glance(head, len(frame))
            if l4 and proto in (p.PROTO_TCP, p.PROTO_UDP):
                key = bytes((proto,)) + ends
                worker = self._cache.get(key) or self._worker(key)
            else:
                worker = self.workers[self._slots[self._slow.of(frame)]]
            share = shares.get(worker)
            if share is None:
                shares[worker] = [frame]
            else:
                share.append(frame)
        return shares

    def _worker(self, key: bytes) -> str:
        if len(self._cache) >= CACHE:
            self._cache.clear()
        worker = self.workers[self._slots[slot(key)]]
        self._cache[key] = worker
        return worker


def inner_key(packet: p.Packet) -> bytes:
    """The key of the flow that an ICMP error is about (RFC 792, RFC 4443 §3), or an empty one.

    The error quotes a packet that came *to* the guest. Both directions of a flow have the same slot, so the direction
    does not matter.
    """
    if packet.kind != p.Kind.IP:
        return b""
    quoted = p.error_quote(packet.frame, packet.l4, packet.end, packet.proto, packet.tags)
    return quoted.key if quoted is not None else b""
