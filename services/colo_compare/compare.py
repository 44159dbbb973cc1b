"""`colo-compare`: releases a primary frame only if the secondary could carry on after it.

::

    primary_in   ---> +----------------+
                      |  dispatch      |      one TcpFlow or DatagramFlow per guest-to-client flow
    secondary_in ---> |  by flow key   | ---> flows ---> outdev
                      +----------------+         |
    notify_dev   <----- checkpoint wanted -------+      (secondary frames are never sent)
                 -----> checkpoint done, mode

The dispatcher knows two shapes of frame by heart (untagged IPv4 without options or fragments, untagged
IPv6 without extension headers) because nearly all frames have them and every microsecond is paid twice
a packet; everything else goes through `dissect`, which gives the same keys.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from struct import Struct
from struct import error as StructError  # noqa: N812  a class
from typing import Any

from colo_compare.config import CompareConfig
from colo_compare.datagram import DatagramFlow
from colo_compare.exempt import PassedDatagrams, PassedTcp, WatchedDatagrams, WatchedTcp, aside
from colo_compare.ledger import Datagrams, Flow, Ledger, Stream, frames_of
from colo_compare.moving import Moving
from colo_compare.payload import UNCOMPARED, payload
from colo_compare.tcp import TcpFlow
from colo_compare.tcp_state import Unit
from colo_proto.core import Log, Output, Port, Send, Tell, Way
from colo_proto.errors import ConfigError
from colo_proto.frame import GSO_UDP_L4, NO_OFFLOAD, Buffer
from colo_proto.messages import (
    CheckpointDone,
    Flushed,
    Handover,
    HandoverTaken,
    Message,
    Mode,
    SetMode,
    SetRules,
    Welcome,
    WorkerTable,
)
from colo_proto.net import packet as p
from colo_proto.net.flow import tags_of
from colo_proto.net.fragment import Reassembler
from colo_proto.net.offload import to_plain
from colo_proto.rules import COMPARE, DEFAULT, PASS, SHADOW, Rule, parse_rules

_V4 = Struct("!3sxH2xHxB2x12s").unpack_from
"""EtherType, version and header length; total length; flags and fragment offset; protocol; addresses and ports."""
_IPV4 = b"\x08\x00\x45"
_IPV6 = b"\x86\xdd"
_TCP, _UDP = b"\x06", b"\x11"

_STREAM: dict[str, Callable[[Ledger, bytes, Rule, float], Stream]] = {
    COMPARE: TcpFlow, PASS: PassedTcp, SHADOW: WatchedTcp,
}  # fmt: skip
_DATAGRAMS: dict[str, Callable[[Ledger, bytes, Rule, float], Datagrams]] = {
    COMPARE: DatagramFlow, PASS: PassedDatagrams, SHADOW: WatchedDatagrams,
}  # fmt: skip
"""What becomes of a flow, by the action of its rule."""


class Compare:
    """The core. Ports `primary_in`, `secondary_in`, `outdev`; control by `tell`."""

    ports = (
        Port("primary_in", Way.IN, required=True, doc="frames of the primary guest", marks=True),
        Port("secondary_in", Way.IN, required=True, doc="frames of the secondary guest, rewritten", marks=True),
        Port("outdev", Way.OUT, required=True, doc="released frames of the primary guest"),
    )

    def __init__(self, config: CompareConfig) -> None:
        self.config = config
        self.timeout = config.compare_timeout / 1000
        self.cycle = config.expired_scan_cycle / 1000
        self.ledger = Ledger(config)
        self.flows: dict[bytes, Flow] = {}
        """All of them, by key."""
        self.streams: dict[bytes, Stream] = {}
        self.datagrams: dict[bytes, Datagrams] = {}
        """TCP's and UDP's without tags once more, by addresses and ports alone: what the commonest frames look for."""
        self.mode = config.mode
        self.ledger.shadow = config.mode == Mode.SHADOW
        self.next_scan: float | None = None
        self._frames_rules: SetRules | None = None
        """What the COLO frame has said; it comes before our own."""
        self._frame = 0
        self.oldest = 0.0
        """Age of the oldest held frame at the last scan."""
        size = config.max_held_mib << 18
        self.fragments = (Reassembler(1024, size, self.timeout), Reassembler(1024, size, self.timeout))
        self.moving = Moving(self)

    @property
    def counters(self) -> Counter[str]:
        """All counters; the books they keep are in `ledger`."""
        return self.ledger.folded()

    # -- frames --------------------------------------------------------------------------------------

    def receive(self, port: str, frames: Sequence[bytes], now: float) -> list[Output]:
        """Frames of one guest arrived; what may go is in the outputs."""
        if self.moving.busy and self.mode != Mode.BYPASS:
            frames = self.moving.sift(port, frames)
        self.handle(port, frames, now)
        return self._out()

    def handle(self, port: str, frames: Sequence[bytes], now: float) -> None:
        """Frames whose flows are here."""
        if self.next_scan is None:
            self.next_scan = now + self.cycle
        ledger = self.ledger
        if port == "primary_in":
            ledger.frames_primary += len(frames)
            if self.mode == Mode.ENFORCE:
                self._primary(frames, now)
            elif self.mode == Mode.SHADOW:
                with aside(ledger):
                    self._primary(frames, now)
                ledger.sink.extend(frames)
                ledger.counters["released.mode"] += len(frames)
            else:
                ledger.counters["released.mode"] += len(frames)
                ledger.sink.extend(frames)
        else:
            ledger.frames_secondary += len(frames)
            if self.mode == Mode.BYPASS:
                ledger.secondary_gone(len(frames), "mode")
            else:
                self._secondary(frames, now)
                if ledger.secondary_bytes > ledger.enough:
                    ledger.squeeze(self.flows.values())

    def _primary(self, frames: Sequence[bytes], now: float) -> None:
        streams, datagrams = self.streams, self.datagrams
        for frame in frames:
            try:
                head, total, fragment, proto, ends = _V4(frame, 22)
                if head == _IPV4 and not fragment & 0x3FFF:
                    end = 24 + total
                    if proto == 6:
                        if 64 <= end <= len(frame):
                            flow = streams.get(ends) or self._open_stream(ends, now)
                            flow.primary(frame, frame, 44, end, now)
                            continue
                    elif proto == 17 and 52 <= end <= len(frame) and frame[1] != GSO_UDP_L4:
                        packets = datagrams.get(ends) or self._open_datagrams(ends, now)
                        packets.primary(frame, frame[52:end], now)
                        continue
                elif frame[22:24] == _IPV6:
                    proto = frame[30]
                    end = 64 + (frame[28] << 8 | frame[29])
                    if proto == 6:
                        if 84 <= end <= len(frame):
                            ends = frame[32:68]
                            flow = streams.get(ends) or self._open_stream(ends, now)
                            flow.primary(frame, frame, 64, end, now)
                            continue
                    elif proto == 17 and 72 <= end <= len(frame) and frame[1] != GSO_UDP_L4:
                        ends = frame[32:68]
                        packets = datagrams.get(ends) or self._open_datagrams(ends, now)
                        packets.primary(frame, frame[72:end], now)
                        continue
            except StructError:
                pass
            self._slow(frame, now, primary=True)

    def _secondary(self, frames: Sequence[bytes], now: float) -> None:
        streams, datagrams = self.streams, self.datagrams
        for frame in frames:
            try:
                head, total, fragment, proto, ends = _V4(frame, 22)
                if head == _IPV4 and not fragment & 0x3FFF:
                    end = 24 + total
                    if proto == 6:
                        if 64 <= end <= len(frame):
                            flow = streams.get(ends) or self._open_stream(ends, now)
                            flow.secondary(frame, 44, end, now)
                            continue
                    elif proto == 17 and 52 <= end <= len(frame) and frame[1] != GSO_UDP_L4:
                        packets = datagrams.get(ends) or self._open_datagrams(ends, now)
                        packets.secondary(frame, frame[52:end], now)
                        continue
                elif frame[22:24] == _IPV6:
                    proto = frame[30]
                    end = 64 + (frame[28] << 8 | frame[29])
                    if proto == 6:
                        if 84 <= end <= len(frame):
                            ends = frame[32:68]
                            flow = streams.get(ends) or self._open_stream(ends, now)
                            flow.secondary(frame, 64, end, now)
                            continue
                    elif proto == 17 and 72 <= end <= len(frame) and frame[1] != GSO_UDP_L4:
                        ends = frame[32:68]
                        packets = datagrams.get(ends) or self._open_datagrams(ends, now)
                        packets.secondary(frame, frame[72:end], now)
                        continue
            except StructError:
                pass
            self._slow(frame, now, primary=False)

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
            if primary:
                stream.primary(unit, buf, l4, end, now)
            else:
                stream.secondary(buf, l4, end, now)
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

    def _out(self) -> list[Output]:
        ledger = self.ledger
        outputs, ledger.outputs = ledger.outputs, []
        if ledger.sink:
            sink, ledger.sink = ledger.sink, []
            frames: list[Buffer] = []
            for unit in sink:
                if type(unit) is tuple:
                    frames.extend(unit)
                else:
                    frames.append(unit)  # type: ignore[arg-type]
            ledger.released = ledger.released + len(frames)
            outputs.append(Send("outdev", frames))
        return outputs

    # -- flows ---------------------------------------------------------------------------------------

    def _open_stream(self, ends: bytes, now: float) -> Stream:
        """The connection between `ends`, which had no frame of the commonest shape yet."""
        flow = self.streams[ends] = self._stream(_TCP + ends, now)
        return flow

    def _open_datagrams(self, ends: bytes, now: float) -> Datagrams:
        flow = self.datagrams[ends] = self._packets(_UDP + ends, now)
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
            flow = self.flows[key] = _DATAGRAMS[rule.action](self.ledger, key, rule, now)
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
        if key[:1] == _TCP:
            self.streams.pop(key[1:], None)
        elif key[:1] == _UDP:
            self.datagrams.pop(key[1:], None)
        for table in (ledger.holding, ledger.lingering, ledger.asked, ledger.suspects, ledger.stuck):
            table.pop(flow, None)
        ledger.unprotected.discard(key)

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
        for flow in [flow for flow in self.flows.values() if flow.idle_since(now)]:
            self.forget(flow, "idle")
            self.ledger.counters["flows_expired"] += 1

    # -- time ----------------------------------------------------------------------------------------

    def deadline(self) -> float | None:
        """The next scan, or sooner when something is suspected, seems stuck, or is on its way to or from a worker."""
        suspects, stuck, moves = self.ledger.suspects, self.ledger.stuck, self.moving.deadline()
        if not suspects and not stuck and moves is None:
            return self.next_scan
        due = [self.next_scan, moves]
        if suspects:
            due.append(min(suspects.values()))
        if stuck:
            # All wait equally long, so the first that came is the first that is due.
            due.append(next(iter(stuck.values())))
        return min(when for when in due if when is not None)

    def mark(self, port: str, version: int, now: float) -> list[Output]:
        """From here on `port` is shared out by the worker table `version`."""
        self.moving.mark(port, version, now)
        return self._out()

    def leave(self, now: float) -> list[Output]:
        """Before the process stops: ask for our flows to be moved. Nothing when no input is shared out."""
        return self._out() if self.moving.leave() else []

    def on_timer(self, now: float) -> list[Output]:
        """Judge what is due; every `expired_scan_cycle` look for frames older than `compare_timeout`."""
        suspects, stuck = self.ledger.suspects, self.ledger.stuck
        for flow in [flow for flow, due in suspects.items() if due <= now]:
            del suspects[flow]
            flow.judge(now)
        while stuck and next(iter(stuck.values())) <= now:
            flow = next(iter(stuck))
            del stuck[flow]
            flow.judge(now)
        if self.next_scan is not None and now >= self.next_scan:
            self._scan(now)
        self.moving.on_timer(now)
        return self._out()

    def _scan(self, now: float) -> None:
        ledger = self.ledger
        self.next_scan = now + self.cycle if self.flows or ledger.held or ledger.held_secondary else None
        limit = now - self.timeout
        first = now
        for flow in list(ledger.holding):
            oldest = flow.oldest()
            if oldest is None:
                del ledger.holding[flow]
                continue
            first = min(first, oldest)
            if oldest < limit and not flow.wanted:
                flow.timed_out(now)
        self.oldest = now - first
        for flow in list(ledger.lingering):
            flow.expire(limit, now)
            if not flow.lingers():
                ledger.lingering.pop(flow, None)
        for side, assembler in enumerate(self.fragments):
            assembler.expire(now)
            self._collect(assembler.dropped(), "fragments", primary=side == 0)
        ledger.ask_again(now)
        ledger.relax()
        self._forget_idle(now)

    # -- control -------------------------------------------------------------------------------------

    def tell(self, message: Message, now: float) -> list[Output]:
        """`CheckpointDone`, `SetMode`, `Welcome` of the COLO frame."""
        if isinstance(message, CheckpointDone):
            self._checkpoint(message)
        elif isinstance(message, SetMode):
            self._set_mode(message.mode)
            if message.resync:
                self._resync()
        elif isinstance(message, SetRules):
            self._frames_rules = message
            self._rules(message.rules, "the frame's rules")
        elif isinstance(message, WorkerTable):
            self.moving.table(message, now)
        elif isinstance(message, Handover):
            self.moving.handed(message, now)
        elif isinstance(message, HandoverTaken):
            self.moving.taken(message, now)
        elif isinstance(message, Welcome):
            self.ledger.epoch = max(self.ledger.epoch, message.epoch)
            self._set_mode(message.mode)
            if message.incarnation != self._frame and self._frames_rules is not None:
                # The frame was restarted: it takes this back unless it has rules of its own.
                self.ledger.outputs.append(Tell(self._frames_rules))
            self._frame = message.incarnation
        return self._out()

    def load_rules(self, text: str, where: str) -> list[Output]:
        """Rules of our own file. Those of the COLO frame, once it has said some, come before them."""
        if self._frames_rules is not None:
            self.ledger.outputs.append(Log("warning", "rules.overruled", {"where": where}))
            return self._out()
        self._rules(text, where)
        return self._out()

    def _rules(self, text: str, where: str) -> None:
        """Put other rules into force, for open flows as well; the old ones stay when these are wrong."""
        ledger = self.ledger
        try:
            rules = parse_rules(text, where)
        except ConfigError as error:
            ledger.counters["rules_refused"] += 1
            ledger.outputs.append(Log("error", "rules.refused", {"error": str(error)}))
            return
        ledger.rules = rules
        ledger.counters["rules_loaded"] += 1
        ledger.outputs.append(Log("info", "rules.loaded", {"where": where, "rules": len(rules.rules)}))
        for flow in list(self.flows.values()):
            rule = rules.find(flow.key)
            if rule.action == flow.rule.action:
                flow.rule = rule
                continue
            # What follows starts from the middle; what is held was not found equal, and may go only if exempt.
            if rule.action != COMPARE:
                flow.let_out("rule")
            self.forget(flow, "rule")

    def _checkpoint(self, done: CheckpointDone) -> None:
        """Release what the checkpoint covers.

        With the state copied everything held may go: the secondary now is the primary's copy. Without,
        only the flows that asked are let go, and are unprotected from then on; the others are still
        equal and go on being compared, so their queues stay.
        """
        ledger = self.ledger
        held, before = ledger.held, len(ledger.sink)
        if done.state_copied:
            for flow in self.flows.values():
                flow.flush(copied=True)
            ledger.unprotected.clear()
            ledger.strangers = False
            self._clear_fragments("checkpoint")
        else:
            for flow in ledger.asked:
                flow.flush(copied=False)
                ledger.unprotected.add(flow.key)
        ledger.asked.clear()
        ledger.epoch = max(ledger.epoch, done.epoch)
        ledger.counters["checkpoints_done"] += 1
        released = sum(frames_of(unit) for unit in ledger.sink[before:])
        ledger.outputs.append(Tell(Flushed(done.epoch, self.config.id, released, held - ledger.held - released)))
        ledger.outputs.append(
            Log("info", "checkpoint.flushed", {"epoch": done.epoch, "copied": done.state_copied, "released": released})
        )

    def _clear_fragments(self, cause: str) -> None:
        """Datagrams that are not whole yet: the primary's fragments go, the secondary's are dropped."""
        ledger = self.ledger
        mine, its = (assembler.clear() for assembler in self.fragments)
        if not ledger.shadow:
            ledger.held -= len(mine)
            for frame in mine:
                ledger.passed(frame, cause)
        ledger.secondary_gone(len(its), cause, stored=True)

    def _set_mode(self, mode: str) -> None:
        if mode == self.mode or mode not in Mode.ALL:
            return
        ledger = self.ledger
        if mode != Mode.ENFORCE:
            for flow in list(ledger.holding):
                flow.let_out("mode")
        self._clear_fragments("mode")
        for flow in list(self.flows.values()):
            # What was compared before says nothing of what comes after: flows start from the middle. So do those that
            # differed in shadow mode and were left alone, for no checkpoint has passed them.
            if Mode.BYPASS in {mode, self.mode} or (mode == Mode.ENFORCE and flow.unprotected):
                self.forget(flow, "mode")
        ledger.outputs.append(Log("info", "mode.changed", {"before": self.mode, "after": mode}))
        ledger.counters["mode_changes"] += 1
        self.mode = mode
        ledger.shadow = mode == Mode.SHADOW

    def _resync(self) -> None:
        """Another secondary, which got no state: what is open now it does not have, what opens from now on it has."""
        ledger = self.ledger
        ledger.strangers = True
        for flow in self.flows.values():
            flow.flush(copied=False)
            ledger.unprotected.add(flow.key)
        ledger.asked.clear()

    def drain(self, now: float) -> list[Output]:
        """The process stops. What is held was not found equal, so it may not go: the guests send again."""
        for flow in list(self.flows.values()):
            self.forget(flow, "shutdown")
        for side, assembler in enumerate(self.fragments):
            self._collect(assembler.clear(), "shutdown", primary=side == 0)
        return self._out()

    # -- looking in ----------------------------------------------------------------------------------

    def gauges(self) -> dict[str, int]:
        """Levels: queue depths, flows, flows that are no longer protected."""
        ledger = self.ledger
        return {
            "held": ledger.held,
            "held_bytes": ledger.held_bytes,
            "held_secondary": ledger.held_secondary,
            "secondary_bytes": ledger.secondary_bytes,
            "flows": len(self.flows),
            "flows_unprotected": len(ledger.unprotected),
            "held_oldest_ms": int(self.oldest * 1000) if ledger.held else 0,
            "epoch": ledger.epoch,
            "parked": self.moving.parked,
            "linked": int(self.moving.linked),
            "table_version": self.moving.settled,
        }

    def status(self) -> dict[str, Any]:
        """Mode and the last differences, explained."""
        ledger = self.ledger
        return {
            "mode": self.mode,
            "epoch": ledger.epoch,
            "rules": [rule.text for rule in ledger.rules.rules],
            "workers": self.moving.workers,
            "rules_from": "frame" if self._frames_rules is not None else "file" if self.config.rules else "",
            "last": ledger.last,
        }
