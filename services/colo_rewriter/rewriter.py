"""The rewriter: makes the secondary guest's TCP connections continue the primary's.

::

                     ack + offset, TSecr + ts_offset
     indev  ------------------------------------------>  netdev (to the guest)
     outdev <------------------------------------------  netdev (from the guest)
                     seq - offset, TSval - ts_offset

     standby    the client tap; it replaces indev and outdev after a failover where no redirector uses it (lean wiring)
     lead_in    frames of the clients, from this host's mirror: replaces indev while this host leads (symmetric wiring)
     lead_out   frames of the guest, to this host's compares: replaces outdev while this host leads

Each frame goes through `Passage`. Messages of the COLO frame and timers are handled here.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar, Final

from colo_proto.core import Log, Output, Port, Send, Tell, Way
from colo_proto.frame import Buffer
from colo_proto.lan import CLAIMS, Lan
from colo_proto.messages import CheckpointDone, Demote, LanAsk, LanSay, Message, Mode, Promote, SetMode, Unprotected
from colo_proto.net.announce import Announcer
from colo_rewriter.backoff import MAX_REVIVED, REVIVE_AT, end_backoff, may_be_waiting
from colo_rewriter.config import RewriterConfig
from colo_rewriter.flow import FlowTable, Outbox
from colo_rewriter.neighbour import Neighbours
from colo_rewriter.passage import Passage
from colo_rewriter.tracker import Tracker
from colo_rewriter.waiting import Waiting

MAX_ASKED: Final = 64
"""Neighbours that are asked for in a second."""


class Rewriter:
    """See the module. All times are monotonic seconds."""

    ports: ClassVar[tuple[Port, ...]] = (
        Port("indev", Way.IN, True, "frames of the clients, to the guest"),
        Port("netdev", Way.BOTH, True, "the guest"),
        Port("outdev", Way.OUT, True, "frames of the guest, rewritten"),
        Port("standby", Way.BOTH, False, "the client tap, after a failover", spare=True),
        Port("lead_in", Way.IN, False, "frames of the clients, while this host leads"),
        Port("lead_out", Way.OUT, False, "frames of the guest, while this host leads"),
        CLAIMS,
    )

    def __init__(self, config: RewriterConfig) -> None:
        self.counters: Counter[str] = Counter()
        self._table = FlowTable(
            config.max_flows, config.half_open_timeout, config.established_timeout, config.closed_timeout
        )
        self._waiting = Waiting(config.hold_frames, config.hold_ms / 1000)
        self._out = Outbox()
        self._tracker = Tracker(self._table, self._waiting, self._out, self.counters)
        self._config = config
        self._passage = Passage(self._tracker, Neighbours() if config.answer_neighbours else None, self.counters)
        self._checkpoints = 0
        self._fence = 0
        self._asked = 0
        self._asked_at = float("-inf")
        """How many neighbours were asked for, in the second that began then."""
        self._promoted = False
        self._revivals: list[float] = []
        self._mode: str = Mode.ENFORCE
        self._roles_change = self._table.roles_change = bool(config.lead_in)
        # The ports that replace `indev` and `outdev` after a promotion.
        self._lan_in, self._lan_out = ("lead_in", "lead_out") if config.lead_in else ("standby", "standby")
        self._announcer = Announcer() if config.standby or config.lead_in else None
        self._lan = Lan(self.counters) if config.claims else None

    # -- the core's shape -----------------------------------------------------------------------

    def receive(self, port: str, frames: Sequence[Buffer], now: float) -> list[Output]:
        """Frames of the clients (`indev`; after a promotion `standby` or `lead_in`) or of the guest (`netdev`)."""
        heard: list[Output] = []
        self.counters["frames_in"] += len(frames)
        if port == "netdev":
            if self._announcer is not None:
                self._announcer.learn(frames)
            self._passage.take(frames, now, outward=True)
            heard = self._asks(now)
        elif port not in ("indev", "standby", "lead_in"):
            raise ValueError(f"the rewriter has no input {port!r}")
        else:
            if port == "standby" and self._lan is not None:
                count = len(frames)
                frames, heard = self._lan.sift(frames, now)
                self.counters["dropped.claim"] += count - len(frames)
            if self._announcer is None or (port == self._lan_in) == self._promoted:
                self._passage.take(frames, now, outward=False)
            else:
                self.counters["dropped.promoted" if port == "indev" else "dropped.standby"] += len(frames)
        return [*self._sends(), *heard]

    def _asks(self, now: float) -> list[Output]:
        """Have the primary's side ask for the neighbours that are not known here."""
        asks, self._passage.asks = self._passage.asks, []
        if not asks:
            return []
        if now >= self._asked_at + 1.0:
            self._asked_at, self._asked = now, 0
        asks = asks[: MAX_ASKED - self._asked]
        self._asked += len(asks)
        self.counters["neighbours_asked"] += len(asks)
        return [Tell(LanAsk(bytes(one))) for one in asks]

    def tell(self, message: Message, now: float) -> list[Output]:
        """A finished checkpoint, a mode, the promotion of this side or its end, or a claim to send."""
        outputs: list[Output] = []
        if isinstance(message, CheckpointDone):
            self._checkpoints += 1
            # While this guest is the one that the other is compared with, a checkpoint concerns the other one.
            if not (self._promoted and self._roles_change):
                self._tracker.endings.checkpoint(now, copied=message.state_copied)
                if message.state_copied:
                    self._tracker.state_copied()
        elif isinstance(message, Unprotected):
            self._tracker.endings.hear(message, now)
        elif isinstance(message, SetMode):
            self._mode = message.mode
            self._set_mode(message.mode, now)
        elif isinstance(message, Promote):
            if (self._roles_change or message.side == "secondary") and message.fence >= self._fence:
                outputs = self._promote(message, now)
        elif isinstance(message, Demote):
            if message.fence > self._fence:
                outputs = self._demote(message.fence, now)
        elif isinstance(message, LanSay) and self._lan is not None:
            outputs = self._lan.say(message)
        return [*self._sends(), *outputs]

    def _set_mode(self, mode: str, now: float) -> None:
        """In shadow mode the client does not wait for this guest, so what the client sends has to wait for it."""
        paced = mode == Mode.SHADOW and not self._promoted
        if mode == Mode.BYPASS:
            self._tracker.stop_pacing(now)
        elif paced != self._tracker.pacing.on:
            self._tracker.pace(on=paced)

    def _promote(self, message: Promote, now: float) -> list[Output]:
        before, self._promoted, self._fence = self._promoted, True, message.fence
        if before:
            return []
        reset = self.counters["connections_reset"]
        self._tracker.promote(now, on=True, replica=message.replica)
        # The guest is on the LAN from now on and hears its neighbours itself.
        self._passage.neighbours = None
        self._revivals = [now + after for after in REVIVE_AT] if self._config.revive else []
        about = {"fence": message.fence, "flows": len(self._table), "reset": self.counters["connections_reset"] - reset}
        outputs: list[Output] = [Log("info", "rewriter.promoted", about)]
        if self._announcer is not None:
            self._announcer.start(now)
            outputs += self._announce(now)
        return outputs

    def _demote(self, fence: int, now: float) -> list[Output]:
        if not self._promoted:
            if self._roles_change:
                self._fence = fence
            return []
        self._promoted = False
        self._tracker.promote(now, on=False)
        self._fence = fence
        self._revivals = []
        self._passage.neighbours = Neighbours() if self._config.answer_neighbours else None
        if self._announcer is not None:
            self._announcer.stop()
        if self._roles_change:
            # The guest follows the other one now, in the mode that was set while it led.
            self._set_mode(self._mode, now)
        return [Log("warning", "rewriter.demoted", {"fence": fence})]

    def _revive(self) -> list[Output]:
        """End the retransmission back-off of connections that may wait for a timeout (`colo_rewriter.backoff`)."""
        flows = sorted(filter(may_be_waiting, self._table), key=lambda flow: flow.seen)[-MAX_REVIVED:]
        for flow in flows:
            for_guest, for_client = end_backoff(flow)
            self._out.to_guest.append(for_guest)
            self._out.to_client += for_client
        self.counters["revivals"] += 3 * len(flows)
        return self._sends()

    def _announce(self, now: float) -> list[Output]:
        frames = self._announcer.due(now) if self._announcer is not None else []
        if not frames:
            return []
        self.counters["announcements"] += len(frames)
        self.counters["frames_out"] += len(frames)
        return [Send(self._lan_out, frames)]

    def deadline(self) -> float | None:
        """When something is due: a held frame, an idle connection, an announcement, or the end of a back-off."""
        due = [self._tracker.deadline(), self._revivals[0] if self._revivals else None]
        if self._announcer is not None:
            due.append(self._announcer.deadline())
        return min((when for when in due if when is not None), default=None)

    def on_timer(self, now: float) -> list[Output]:
        """Pass what waited too long, forget what was idle too long, announce and revive."""
        self._tracker.tick(now)
        expired = len(self._out.to_guest)
        self._tracker.endings.tick(now)
        outputs = self._sends()
        if expired:
            outputs.append(Log("warning", "handshake.wait_expired", {"frames": expired}))
        if self._revivals and now >= self._revivals[0]:
            self._revivals = [when for when in self._revivals if when > now]
            outputs += self._revive()
        return outputs + self._announce(now)

    def drain(self, now: float) -> list[Output]:
        """Pass every held frame as it is."""
        self._tracker.pass_everything(now)
        return self._sends()

    def gauges(self) -> dict[str, int]:
        """Levels: connections by state, held frames and bytes, known neighbours."""
        waiting, pacing = self._waiting, self._tracker.pacing
        levels = {"flows": len(self._table), "held": waiting.frames + pacing.frames}
        levels["held_bytes"] = waiting.bytes + pacing.bytes
        levels["flows_unprotected"] = self._tracker.endings.count()
        levels |= {f"flows_{name}": count for name, count in self._table.count().items()}
        neighbours = self._passage.neighbours
        levels["neighbours"] = len(neighbours) if neighbours is not None else 0
        if self._roles_change:
            levels["promoted"] = int(self._promoted)
        return levels

    def status(self) -> dict[str, Any]:
        """A few facts for `colo status`."""
        shifted = [flow for flow in self._table if flow.offset or flow.ts_offset]
        known: dict[str, Any] = {"announces": self._announcer.status()} if self._announcer is not None else {}
        return known | {
            "promoted": self._promoted,
            "paced": self._tracker.pacing.on,
            "fence": self._fence,
            "unprotected": dict(self._tracker.endings.told),
            "checkpoints": self._checkpoints,
            "flows_shifted": len(shifted),
            "examples": [
                {"flow": f.text(), "state": f.state.name.lower(), "offset": f.offset, "ts_offset": f.ts_offset}
                for f in shifted[:5]
            ],
        }

    # -- frames ---------------------------------------------------------------------------------

    def _sends(self) -> list[Output]:
        to_guest, to_client = self._out.take()
        outputs: list[Output] = []
        if to_guest:
            outputs.append(Send("netdev", to_guest))
        if to_client:
            swapped = self._promoted and self._announcer is not None
            outputs.append(Send(self._lan_out if swapped else "outdev", to_client))
        self.counters["frames_out"] += len(to_guest) + len(to_client)
        return outputs
