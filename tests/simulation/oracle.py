"""The invariants (docs/design.md), checked after every step with knowledge of everything.

The oracle does not ask compare what is equal; it looks into the guests' sockets. A frame that compare releases is
checked against the secondary's socket: has it sent the same byte at this position, acknowledged as much, and offered as
large a window?

====  ==============================================================================================
 S1   no byte, ACK, SYN, RST or datagram leaves compare that the secondary has not produced, unless a
      checkpoint, a mode, or a flow that is no longer protected allows it
 W1   no released window reaches further than the secondary's;  W2 edges never move back
 S2   what leaves is what the primary sent, with right checksums; jobs receive what they must
 S4   what the primary acknowledged, the secondary acknowledged, or a checkpoint was demanded
 S6   counters add up in every process
 L1   what compare holds is younger than compare_timeout and a scan, or a checkpoint was demanded
 L2   after the faults everything completes
 E2   identical guests never cause a checkpoint
 R1   the secondary guest never receives a number that is not in its own sequence space
 S1, S2, W1 and W2 are checked by `releases`; more is in `streams`
====  ==============================================================================================
"""

from collections import Counter

from colo_proto.core import Send
from colo_proto.messages import CheckpointDone, CheckpointWanted, SetMode, Welcome

from .releases import Releases, Watch, flow_text
from .streams import LOOK_EVERY, Streams
from .tcb import CLOSED, SYN_RCVD, lives
from .wire import RST, TCP, read

SIDES = ("primary", "secondary")
UNEQUAL = frozenset({"payload", "fin", "options", "datagram"})
WELL_AFTER = 12.0
"""Seconds after a disturbance for which retransmissions may still be under way."""
ORDERLY_AFTER = 1.0


class Violation(Exception):  # noqa: N818  it is one
    """An invariant does not hold. `name` is the name of the invariant."""

    def __init__(self, name, text):
        super().__init__(f"{name}: {text}")
        self.name = name


def rebirths(sock):
    """How often a late duplicate of its SYN has opened a connection again that had already ended at this guest."""
    return sum(one.state == CLOSED for one in lives(sock.before)) if sock is not None else 0


class Oracle:
    """See the module."""

    def __init__(self, world):
        self.world = world
        self.watches = {}
        self.reasons = Counter()
        self.gap_demanded = False
        self.copies = 0
        self.asked = False
        self.killed_roles = Counter()
        self.heard = {"primary": Counter(), "secondary": Counter()}
        self.released = 0
        self.moded = False
        self.client_resets = set()
        """Flows on which a client has sent RST. Compare does not see clients, and nobody sends again what it held of
        such a connection. So it requests a checkpoint, which is right for what it knows.
        """
        self.strayed = set()
        """Connections that a stray SYN would open."""
        self.lan_lost = {}
        """Flow -> when the LAN last lost a frame of it."""
        self.steps = 0
        self.streams = Streams(world, self.fail)
        self.releases = Releases(world, self.fail, self.watches, self.streams)

    def begin(self):
        """Begin to look at the streams again and again."""
        self.world.clock.after(LOOK_EVERY, self.streams.look, self)

    def lan_loses(self, frame):
        p = read(frame)
        if p is not None and p.proto == TCP:
            for flow in ((p.src, p.dst, p.sport, p.dport), (p.dst, p.src, p.dport, p.sport)):
                self.lan_lost[flow_text(TCP, *flow, p.tag)] = self.world.clock.now

    def fail(self, name, text):
        raise Violation(name, text)

    # -- what happens ----------------------------------------------------------------------------

    def killed(self, process):
        self.killed_roles[process.role] += 1
        if process.role == "frame":
            self._frame_demands(process)
        self.watches.pop(process.id, None)

    def _frame_demands(self, process):
        """A COLO frame requests a checkpoint by itself when it notices that a mirror was restarted."""
        if process.core is not None and process.core.counters["checkpoints_wanted.mirror_gap"]:
            self.gap_demanded = True

    def mode_asked(self, mode):
        self.moded = True

    def copied(self):
        self.copies += 1
        self.releases.copied()

    def reached(self, host, frame):
        """A frame arrived at a host: remember what the guests were told in datagrams."""
        if host.name == "client":
            return
        p = read(frame)
        if p is None:
            return
        if p.proto == TCP:
            if frame[p.l4 + 13] & RST:
                self.client_resets.add(flow_text(TCP, p.dst, p.src, p.dport, p.sport, p.tag))
        else:
            self.heard[host.name][p.proto, p.sport, bytes(frame[p.l4 : p.end])] += 1

    def fed(self, process, port, frames):
        watch = self._watch(process)
        watch.fed[port] += len(frames)
        if process.role == "compare":
            for frame in frames:
                self.streams.heard(port, frame)

    def _watch(self, process):
        watch = self.watches.get(process.id)
        if watch is None:
            watch = self.watches[process.id] = Watch()
        return watch

    def told(self, process, message):
        """A filter sends a message to its COLO frame."""
        if type(message) is CheckpointWanted:
            self._wanted(process, message)

    def _wanted(self, process, request):
        world = self.world
        reason = request.reason
        self.reasons[reason] += 1
        world.note(process.id, "wants a checkpoint", reason, request.flow, request.offset)
        if reason == "mirror_gap":
            self.gap_demanded = True
            if not world.disturbances:
                self.fail("E2", "the mirror link lost frames though nothing happened to it")
            return
        watch = self._watch(process)
        if reason != "repeated":
            watch.demanded[request.flow] = world.clock.now
        if reason in ("fin", "payload") or request.detail.get("waits_for") == "bytes":
            ident = self._latest(request.flow)
            self.streams.known(request.flow, *(self._host(side).state.history.get(ident) for side in SIDES))
        self._needless(request)

    def _needless(self, request):
        """E2: there must be a reason for this request."""
        world, now = self.world, self.world.clock.now
        if request.reason == "repeated" or self._differs(request.flow) or request.flow in self.releases.flushed:
            return
        calm = now - world.disturbed_at > WELL_AFTER
        if request.reason in UNEQUAL:
            if request.reason == "datagram" and (world.disturbances or self.copies):
                return
            if self.killed_roles["rewriter"] or self.copies or self.gap_demanded:
                return
            self.fail(
                "E2",
                f"{request.reason} miscompare of identical guests: {request.flow} at {request.offset} {request.detail}",
            )
        if request.reason == "timeout" and (
            request.flow in self.client_resets or self._backed_off(request.flow) or self._reborn(request.flow)
        ):
            return
        if calm and not self.killed_roles["rewriter"] and not self.gap_demanded and not self.copies:
            self.fail(
                "E2", f"needless checkpoint ({request.reason}) of identical guests: {request.flow} {request.detail}"
            )

    def _backed_off(self, flow):
        """True when both guests wait for a client whose frames the LAN lost, for longer than compare waits: what the
        primary has sent ahead of the secondary (their congestion windows differ) is held meanwhile.
        """
        if self.world.clock.now - self.lan_lost.get(flow, float("-inf")) > WELL_AFTER:
            return False
        ident = self._latest(flow)
        states = (self.world.primary.host.state, self.world.secondary.host.state)
        return any(ident in state.history and state.history[ident].rto >= 1.0 for state in states)

    def _reborn(self, flow):
        """True when a SYN arrived while only one guest was closed (each aborts when its own application has read), so
        that now only one of them has half a connection. They differ, but neither has made a mistake.

        A late duplicate of the client's SYN opens it at the primary only. The secondary would have to open it as well,
        because the client may get the answer, but the rewriter refuses it there. A stray SYN may open it at either
        guest, because only the client could tell that it is not its own, and it learns of it when both have it.
        """
        ident = self._latest(flow)
        mine, its = (host.state for host in (self.world.primary.host, self.world.secondary.host))
        one, other = mine.history.get(ident), its.history.get(ident)
        if one is None:
            return False
        if one.state == SYN_RCVD and (rebirths(one) > rebirths(other) or (ident in self.strayed and other is None)):
            return True
        half = its.sockets.get(ident[1:5])
        if half is None or half.state != SYN_RCVD:
            return False
        return half.ident in self.strayed and half.ident not in mine.history

    def _host(self, side):
        return (self.world.primary if side == "primary" else self.world.secondary).host

    def text(self, sock):
        """A connection of the primary as compare writes it."""
        route = sock.route
        return flow_text(TCP, route.src, route.dst, route.sport, route.dport, route.tag)

    def lowers(self, sock):
        """True when a compare currently lowers the windows of this connection where necessary."""
        flow = self.text(sock)
        if flow in self.releases.flushed or self.moded:
            return False
        return any(
            sock.ident in watch.opened and flow not in watch.demanded and flow not in watch.unprotected
            for watch in self.watches.values()
        )

    def _differs(self, flow):
        twist = self.world.plan.twist
        if twist is None or not twist.hit:
            return False
        if twist.hit is True:
            return True
        ident = twist.hit[0]
        return True if ident else bool(flow)

    # -- a step of a compare ---------------------------------------------------------------------

    def before(self, process, outputs, why):
        """Check the outputs of a core before they are carried out."""
        if process.role != "compare":
            return
        watch = self._watch(process)
        done = why if type(why) is CheckpointDone else None
        exempt = watch.mode != "enforce"
        if type(why) in (SetMode, Welcome) and why.mode != watch.mode:
            exempt = exempt or why.mode != "enforce"
            watch.mode = why.mode
            if why.mode == "bypass" or exempt:
                watch.unprotected.clear()
                watch.opened.clear()
        if exempt:
            self.moded = True
        for output in outputs:
            if type(output) is Send:
                watch.released += len(output.frames)
                self.released += len(output.frames)
                for frame in output.frames:
                    self.releases.check(process, watch, bytes(frame), exempt=exempt, done=done)
        if done is not None:
            self._checkpointed(watch, done)

    def _checkpointed(self, watch, done):
        if done.state_copied:
            watch.unprotected.clear()
        else:
            for flow in watch.demanded:
                watch.unprotected[flow] = self._latest(flow)
                self.releases.flushed.add(flow)
        watch.demanded.clear()

    def _latest(self, flow):
        """Identity of the primary's newest connection on a flow."""
        state = self.world.primary.host.state
        for key, idents in state.by_key.items():
            sock = state.history[idents[-1]]
            if flow == flow_text(TCP, key[0], key[2], key[1], key[3], sock.route.tag):
                return idents[-1]
        return None

    # -- after every step ------------------------------------------------------------------------

    def after(self, process):
        self.steps += 1
        core = process.core
        if process.role == "compare":
            watch = self._watch(process)
            if self.steps % 4 == 0 or watch.demanded:
                self._compare_adds_up(process, core, watch)
            self._held_too_long(process, core, watch)

    def _compare_adds_up(self, process, core, watch):
        c, g = core.counters, core.gauges()
        dropped = sum(n for name, n in c.items() if name.startswith("dropped."))
        gone = sum(n for name, n in c.items() if name.startswith("secondary_dropped."))
        into, other = watch.fed["primary_in"], watch.fed["secondary_in"]
        out = watch.released - c["synthesized"]
        if into != out + dropped + g["held"]:
            self.fail("S6", f"{process.id}: {into} primary frames in, {out} out, {dropped} dropped, {g['held']} held")
        if other != gone + g["held_secondary"] - c["secondary_split"]:
            self.fail("S6", f"{process.id}: {other} secondary frames in, {gone} gone, {g['held_secondary']} held")
        if min(c.values()) < 0 or min(g.values()) < 0:
            self.fail("S6", f"{process.id}: a counter below zero: {dict(c)} {g}")

    def _held_too_long(self, process, core, watch):
        """L1. Only compare knows which frames it holds and how old they are; the oracle knows whether it has asked."""
        now = self.world.clock.now
        limit = now - core.ledger.timeout - core.cycle - 0.01
        for flow in core.ledger.holding:
            oldest = flow.oldest()
            if oldest is None or oldest >= limit or now == process.woke_at:
                continue
            if flow.describe() not in watch.demanded:
                self.fail(
                    "L1", f"{process.id} holds a frame of {flow.describe()} for {now - oldest:.2f} s and has not asked"
                )

    # -- at the end ------------------------------------------------------------------------------

    def judge(self):
        """Judge the whole run at its end, when everything has had enough time."""
        world = self.world
        for host in (world.primary.host, world.secondary.host, world.client.host):
            if host.bad_checksums:
                self.fail("S2", f"{host.name} received {len(host.bad_checksums)} frames with a wrong checksum")
        for name, job in world.traffic.jobs.items():
            if job.error:
                self.fail("S2", f"job {name}: {job.error}")
            if job.callee is not None and job.callee.error:
                self.fail("S2", f"job {name}, called back: {job.callee.error}")
        for plan in world.plan.jobs:
            job = world.traffic.jobs.get(plan[0])
            if job is None or not job.finished():
                heard = f"{job.heard} of {len(job.wants)} bytes" if job else "not begun"
                self.fail(
                    "L2", f"job {plan[0]} is not over: {heard}, socket {job.sock.state if job and job.sock else '-'}"
                )
        for key, entry in world.traffic.asks.items():
            if entry["wants"]:
                self.fail("L2", f"question {key} has no answer after {entry['tries']} tries")
        self._mirrored()
        self._numbers()
        for process in world.compares:
            self._compare_adds_up(process, process.core, self._watch(process))

    def _mirrored(self):
        """S4: the secondary guest has received what the primary guest has received."""
        world = self.world
        self._frame_demands(world.frames["primary"])
        if self.gap_demanded or self.copies:
            return
        for what, count in self.heard["primary"].items():
            if self.heard["secondary"][what] < count and not world.taps["secondary", "guest"].lost:
                self.fail(
                    "S4", f"the secondary guest heard {what[:2]} {self.heard['secondary'][what]} times, not {count}"
                )

    def _numbers(self):
        """R1, unless something has happened by which the rewriter lost its state.

        A connection that a late duplicate of its SYN opened again is left out: the client has finished that handshake
        (or the mirror link replays it), and its acknowledgements belong to the connection before. Numbers that the
        primary has received as well are the client's own: it does not acknowledge anything on a connection that a
        stray SYN has opened.
        """
        if self.killed_roles["rewriter"] or self.copies or self.gap_demanded or self.moded or self.releases.flushed:
            return
        if self.world.plan.twist is not None:
            return
        for ident, sock in self.world.secondary.host.state.history.items():
            own = self.world.primary.host.state.history.get(ident)
            acks, sacks = (own.bad_acks, own.bad_sacks) if own is not None else (0, 0)
            if rebirths(sock) or (own is None and ident in self.strayed):
                continue
            if sock.bad_acks > acks or sock.bad_sacks > sacks:
                self.fail(
                    "R1", f"{sock.bad_acks} ACKs, {sock.bad_sacks} SACKs for what the secondary never sent: {ident}"
                )
