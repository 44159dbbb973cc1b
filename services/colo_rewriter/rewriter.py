"""The rewriter: makes the secondary guest's TCP connections continue the primary's.

::

                     ack + offset, TSecr + ts_offset
     indev  ------------------------------------------>  netdev (to the guest)
     outdev <------------------------------------------  netdev (from the guest)
                     seq - offset, TSval - ts_offset

     standby    the client tap; after a failover in place of indev and outdev, where no redirector has it

Per frame: a glance at fixed offsets finds the common case (IPv4 without options, also with one VLAN
tag, or IPv6 without extension headers; TCP; a settled connection; no SYN/FIN/RST) and shifts or
passes it; all else goes through `dissect` and the `Tracker`. What is not TCP passes untouched.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from struct import Struct
from typing import Any, ClassVar, Final

from colo_proto.core import Log, Output, Port, Send, Way
from colo_proto.endpoint import parse_endpoint
from colo_proto.frame import MIN_FRAME, Buffer
from colo_proto.lan import CLAIMS, Lan
from colo_proto.messages import CheckpointDone, Demote, LanSay, Message, Mode, Promote, SetMode, WorkerTable
from colo_proto.net.announce import Announcer
from colo_proto.net.packet import ETH_ARP, PROTO_ICMPV6, PROTO_TCP, Kind, Packet, dissect
from colo_proto.net.tcp import ACK, segment
from colo_proto.shard import Splitter
from colo_rewriter.believable import scale
from colo_rewriter.config import RewriterConfig
from colo_rewriter.flow import PACED, PLAIN, SLOW, Arrival, Flow, FlowTable
from colo_rewriter.neighbour import Neighbours
from colo_rewriter.revive import AT, MOST, revive, worth
from colo_rewriter.shift import toward_client, toward_guest
from colo_rewriter.tracker import Frames, Tracker
from colo_rewriter.waiting import Waiting

# EtherType; version and header length, total length, fragment field, protocol; TCP data offset and flags
_V4: Final[Callable[[bytes, int], tuple[int, int, int, int, int, int, int]]] = Struct("!HBxH2xHxB22xBB").unpack_from
# version, payload length, next header; TCP data offset and flags
_V6: Final[Callable[[bytes, int], tuple[int, int, int, int, int]]] = Struct("!B3xHB45xBB").unpack_from
# sequence and acknowledgement number, data offset, flags, window
_FIELDS: Final[Callable[[bytes, int], tuple[int, int, int, int, int]]] = Struct("!IIBBH").unpack_from
_MASK: Final = 0xFFFFFFFF
_SHORT4: Final = 24 + 20
_SIZE4: Final = 24 + 40
_SIZE6: Final = 24 + 60

TOUCH: Final = 1.0
"""Seconds: the age of a connection's last use is kept this exactly on the fast path."""


class Rewriter:
    """See the module. `config` is checked already; all times are monotonic seconds."""

    ports: ClassVar[tuple[Port, ...]] = (
        Port("indev", Way.IN, True, "frames of the clients, to the guest"),
        Port("netdev", Way.BOTH, True, "the guest"),
        Port("outdev", Way.OUT, True, "frames of the guest, rewritten"),
        Port("standby", Way.BOTH, False, "the client tap, after a failover", spare=True),
        CLAIMS,
    )

    def __init__(self, config: RewriterConfig) -> None:
        self.counters: Counter[str] = Counter()
        self._table = FlowTable(
            config.max_flows, config.half_open_timeout, config.established_timeout, config.closed_timeout
        )
        self._waiting = Waiting(config.hold_frames, config.hold_ms / 1000)
        self._tracker = Tracker(self._table, self._waiting, self.counters)
        self._neighbours = Neighbours() if config.answer_neighbours else None
        self._answer_neighbours = config.answer_neighbours
        self._revive_flows = config.revive
        self._checkpoints = 0
        self._fence = 0
        self._promoted = False
        self._revivals: list[float] = []
        self._announcer = Announcer() if config.standby else None
        self._lan = Lan(self.counters) if config.claims else None
        self._splitter = Splitter() if config.outdev and parse_endpoint(config.outdev).split else None

    # -- the core's shape -----------------------------------------------------------------------

    def receive(self, port: str, frames: Sequence[Buffer], now: float) -> list[Output]:
        """Frames of the clients (`indev`, or `standby` after a failover) or of the guest (`netdev`)."""
        to_guest: Frames = []
        to_client: Frames = []
        heard: list[Output] = []
        self.counters["frames_in"] += len(frames)
        if port == "netdev":
            if self._announcer is not None:
                self._announcer.learn(frames)
            self._take(frames, now, to_client, to_guest, outward=True)
        elif port not in ("indev", "standby"):
            raise ValueError(f"the rewriter has no input {port!r}")
        elif self._announcer is None:
            self._take(frames, now, to_client, to_guest, outward=False)
        else:
            if port == "standby" and self._lan is not None:
                count = len(frames)
                frames, heard = self._lan.sift(frames, now)
                self.counters["dropped.claim"] += count - len(frames)
            if (port == "standby") == self._promoted:
                self._take(frames, now, to_client, to_guest, outward=False)
            else:
                self.counters["dropped.standby" if port == "standby" else "dropped.promoted"] += len(frames)
        return [*self._sends(to_guest, to_client), *heard]

    def tell(self, message: Message, now: float) -> list[Output]:
        """A worker table, a finished checkpoint, or the promotion of this side."""
        to_guest: Frames = []
        outputs: list[Output] = []
        if isinstance(message, WorkerTable):
            if self._splitter is not None:
                self._splitter.table(message)
        elif isinstance(message, CheckpointDone):
            self._checkpoints += 1
            if message.state_copied:
                self._tracker.state_copied(to_guest)
        elif isinstance(message, SetMode):
            self._set_mode(message.mode, now, to_guest)
        elif isinstance(message, Promote):
            if message.side == "secondary" and message.fence >= self._fence:
                outputs = self._promote(message.fence, now, to_guest)
        elif isinstance(message, Demote):
            if self._promoted and message.fence > self._fence:
                self._demote(message.fence, now, to_guest)
                outputs.append(Log("warning", "rewriter.demoted", {"fence": message.fence}))
        elif isinstance(message, LanSay) and self._lan is not None:
            outputs = self._lan.say(message)
        return [*self._sends(to_guest, []), *outputs]

    def _set_mode(self, mode: str, now: float, to_guest: Frames) -> None:
        """Shadow mode: the client does not wait for this guest, so what it sends has to."""
        paced = mode == Mode.SHADOW and not self._promoted
        if mode == Mode.BYPASS:
            self._tracker.part(now, to_guest)
        elif paced != self._tracker.pacing.on:
            self._tracker.pace(on=paced)

    def _promote(self, fence: int, now: float, to_guest: Frames) -> list[Output]:
        before, self._promoted, self._fence = self._promoted, True, fence
        if before:
            return []
        self._tracker.promote(now, to_guest, on=True)
        # The guest is on the LAN from now on and hears its neighbours itself.
        self._neighbours = None
        self._revivals = [now + after for after in AT] if self._revive_flows else []
        outputs: list[Output] = [Log("info", "rewriter.promoted", {"fence": fence, "flows": len(self._table)})]
        if self._announcer is not None:
            self._announcer.start(now)
            outputs += self._announce(now)
        return outputs

    def _demote(self, fence: int, now: float, to_guest: Frames) -> None:
        self._promoted = False
        self._tracker.promote(now, to_guest, on=False)
        self._fence = fence
        self._revivals = []
        if self._answer_neighbours:
            self._neighbours = Neighbours()
        if self._announcer is not None:
            self._announcer.stop()

    def _revive(self) -> list[Output]:
        """Get connections going that wait for a timeout (`colo_rewriter.revive`)."""
        to_guest: Frames = []
        to_client: Frames = []
        flows = sorted(filter(worth, self._table), key=lambda flow: flow.seen)[-MOST:]
        for flow in flows:
            frames = revive(flow)
            if frames is not None:
                for_guest, again, for_client, l4 = frames
                data = l4 + (again[l4 + 12] >> 4) * 4
                to_guest.append(for_guest)
                to_client += [toward_client(again, l4, data, flow, True), for_client]
        self.counters["revivals"] += len(to_guest) + len(to_client)
        return self._sends(to_guest, to_client)

    def _announce(self, now: float) -> list[Output]:
        frames = self._announcer.due(now) if self._announcer is not None else []
        if not frames:
            return []
        self.counters["announcements"] += len(frames)
        self.counters["frames_out"] += len(frames)
        return [Send("standby", frames)]

    def deadline(self) -> float | None:
        """When a held frame, an idle connection, an announcement or a revival is due."""
        due = [self._tracker.deadline(), self._revivals[0] if self._revivals else None]
        if self._announcer is not None:
            due.append(self._announcer.deadline())
        return min((when for when in due if when is not None), default=None)

    def on_timer(self, now: float) -> list[Output]:
        """Pass what waited too long, forget what was idle too long."""
        to_guest: Frames = []
        self._tracker.tick(now, to_guest)
        outputs = self._sends(to_guest, self._tracker.take_notes())
        if to_guest:
            outputs.append(Log("warning", "handshake.wait_expired", {"frames": len(to_guest)}))
        if self._revivals and now >= self._revivals[0]:
            self._revivals = [when for when in self._revivals if when > now]
            outputs += self._revive()
        return outputs + self._announce(now)

    def drain(self, now: float) -> list[Output]:
        """Pass every held frame as it is."""
        to_guest: Frames = []
        self._tracker.pass_everything(now, to_guest)
        return self._sends(to_guest, [])

    def gauges(self) -> dict[str, int]:
        """Levels: connections by state, held frames and bytes, known neighbours."""
        waiting, pacing = self._waiting, self._tracker.pacing
        levels = {"flows": len(self._table), "held": waiting.frames + pacing.frames}
        levels["held_bytes"] = waiting.bytes + pacing.bytes
        levels |= {f"flows_{name}": count for name, count in self._table.count().items()}
        levels["neighbours"] = len(self._neighbours) if self._neighbours is not None else 0
        if self._splitter is not None:
            levels["table_version"] = self._splitter.version
        return levels

    def status(self) -> dict[str, Any]:
        """A few facts for `colo status`."""
        shifted = [flow for flow in self._table if flow.offset or flow.ts_offset]
        known: dict[str, Any] = {"announces": self._announcer.status()} if self._announcer is not None else {}
        return known | {
            "promoted": self._promoted,
            "paced": self._tracker.pacing.on,
            "fence": self._fence,
            "workers": self._splitter.workers if self._splitter is not None else [],
            "checkpoints": self._checkpoints,
            "flows_shifted": len(shifted),
            "examples": [
                {"flow": f.text(), "state": f.state.name.lower(), "offset": f.offset, "ts_offset": f.ts_offset}
                for f in shifted[:5]
            ],
        }

    # -- frames ---------------------------------------------------------------------------------

    def _sends(self, to_guest: Frames, to_client: Frames) -> list[Output]:
        outputs: list[Output] = []
        if to_guest:
            outputs.append(Send("netdev", to_guest))
        sent = len(to_guest)
        if self._promoted and self._announcer is not None:
            if to_client:
                outputs.append(Send("standby", to_client))
                sent += len(to_client)
        elif self._splitter is not None:
            shares = self._splitter.split(to_client)
            if to_client and not shares:
                self.counters["dropped.no_table"] += len(to_client)
            for worker, frames in shares.items():
                outputs.append(Send("outdev", frames, worker))
                sent += len(frames)
        elif to_client:
            outputs.append(Send("outdev", to_client))
            sent += len(to_client)
        self.counters["frames_out"] += sent
        return outputs

    def _take(
        self, frames: Sequence[Buffer], now: float, to_client: Frames, to_guest: Frames, *, outward: bool
    ) -> None:
        """Frames of the guest (`outward`), or of the clients."""
        find = self._table.by_guest.get if outward else self._table.by_client.get
        touch = self._table.touch
        read4, read6 = _V4, _V6
        append = to_client.append if outward else to_guest.append
        if not outward and frames and self._neighbours is not None:
            # One of each batch: whoever goes on talking comes last at some time.
            self._neighbours.notice(frames[-1])
        promoted = self._tracker.promoted
        stale = now - TOUCH
        rewritten = untracked = 0
        moved: dict[Flow, None] = {}
        for frame in frames:
            if type(frame) is not bytes:
                frame = bytes(frame)  # noqa: PLW2901  keys are slices and must hash
            size = len(frame)
            if size >= _SIZE4:
                key = None
                ethertype, version, length, fragment, proto, offset, flags = read4(frame, 22)
                if ethertype == 0x0800:
                    if proto != 6:
                        append(frame)
                        continue
                    if version == 0x45 and not fragment & 0x3FFF:
                        key = frame[36:48]
                        l4, end = 44, 24 + length
                elif ethertype == 0x86DD:
                    if size >= _SIZE6:
                        version, length, proto, offset, flags = read6(frame, 24)
                        if proto == 17:
                            append(frame)
                            continue
                        if proto == 6 and version >> 4 == 6:
                            key = frame[32:68]
                            l4, end = 64, 64 + length
                elif ethertype == 0x8100 and size >= _SIZE4 + 4:
                    ethertype, version, length, fragment, proto, offset, flags = read4(frame, 26)
                    if ethertype == 0x0800 and version == 0x45 and proto == 6 and not fragment & 0x3FFF:
                        key = frame[40:52] + (frame[24:26] if frame[24] < 16 else bytes((frame[24] & 15, frame[25])))
                        l4, end = 48, 28 + length
                if key is not None and not flags & 7 and offset >= 0x50:
                    data = l4 + (offset >> 2 & 0x3C)
                    if data <= end <= size:
                        flow = find(key)
                        if flow is None:
                            untracked += 1
                            append(frame)
                            continue
                        if flow.fast != SLOW:
                            if flow.seen < stale:
                                touch(flow, now)
                            if flow.fast == PACED:
                                if self._paced(flow, frame, l4, data, end, to_client, to_guest, moved, outward):
                                    continue
                                self._slow(frame, now, to_client, to_guest, outward=outward)
                                continue
                            plain = flow.fast == PLAIN
                            if outward:
                                flow.last = (frame[:data], l4, end - data)
                            elif plain:
                                flow.heard = (frame[:data], l4)
                            if plain:
                                append(frame)
                                continue
                            rewritten += 1
                            if outward:
                                append(toward_client(frame, l4, data, flow, promoted))
                            else:
                                append(toward_guest(frame, l4, data, flags, flow))
                            continue
            elif size >= _SHORT4 and frame[22] == 8 and not frame[23] and frame[33] != 6:
                append(frame)
                continue
            self._slow(frame, now, to_client, to_guest, outward=outward)
        for flow in moved:
            self._tracker.proceed(flow, now, to_guest)
        if self._tracker.notes:
            to_client += self._tracker.take_notes()
        if rewritten:
            self.counters["rewritten"] += rewritten
        if untracked:
            self.counters["frames_untracked"] += untracked

    def _paced(
        self, flow: Flow, frame: bytes, l4: int, data: int, end: int, to_client: Frames, to_guest: Frames,
        moved: dict[Flow, None], outward: bool,
    ) -> bool:  # fmt: skip
        """A settled connection of a guest that is not waited for. False: a client's segment that has to wait."""
        pace = self._tracker.pacing.of(flow)
        seq, ack, _, flags, window = _FIELDS(frame, l4 + 4)
        shift = bool(flow.offset or flow.ts_offset)
        if outward:
            flow.last = (frame[:data], l4, end - data)
            pace.heard(seq, (seq + end - data) & _MASK, ack, window << scale(flow), bool(flags & ACK))
            if pace.queue or pace.rest is not None or pace.hole >= 0:
                moved[flow] = None
            to_client.append(toward_client(frame, l4, data, flow, False) if shift else frame)
        else:
            if not flags & ACK or not pace.clear(seq, (ack + flow.offset) & _MASK, (seq + end - data) & _MASK):
                return False
            if not shift:
                flow.heard = (frame[:data], l4)
            to_guest.append(toward_guest(frame, l4, data, flags, flow) if shift else frame)
        if shift:
            self.counters["rewritten"] += 1
        return True

    def _slow(self, frame: bytes, now: float, to_client: Frames, to_guest: Frames, *, outward: bool) -> None:
        """Any frame, by dissection."""
        if len(frame) < MIN_FRAME:
            self.counters["dropped.runt"] += 1
            return
        packet = dissect(frame)
        if packet.proto == PROTO_TCP and packet.kind in (Kind.IP, Kind.FRAGMENT):
            if self._countable(packet):
                seg = segment(frame, packet.l4, packet.end)
                if seg is not None:
                    arrival = Arrival(frame, packet.key[1:], packet.l4, seg, packet.kind == Kind.IP)
                    if outward:
                        self._tracker.from_guest(arrival, now, to_client, to_guest)
                    else:
                        self._tracker.from_client(arrival, now, to_guest)
                    return
                self.counters["malformed"] += 1
        elif self._neighbours is not None and _may_be_neighbourly(packet):
            if not outward:
                self._neighbours.learn(packet)
            elif (reply := self._neighbours.answer(packet)) is not None:
                self.counters["neighbour_answers"] += 1
                to_guest.append(reply)
        elif packet.kind == Kind.MALFORMED:
            self.counters["malformed"] += 1
        (to_client if outward else to_guest).append(frame)

    def _countable(self, packet: Packet) -> bool:
        """Does this packet hold a whole TCP header?

        The first fragment of a segment does (all changes are in the header, and the checksum follows
        from the changes alone), so rewriting it makes the reassembled segment right. Later fragments
        have no header, and one too short for it passes untouched.
        """
        if packet.kind == Kind.IP:
            return True
        self.counters["fragments"] += 1
        l4 = packet.l4
        if packet.frag_offset or packet.end - l4 < 20:
            return False
        return packet.end - l4 >= (packet.frame[l4 + 12] >> 4) * 4


def _may_be_neighbourly(packet: Packet) -> bool:
    return packet.ethertype == ETH_ARP or packet.proto == PROTO_ICMPV6
