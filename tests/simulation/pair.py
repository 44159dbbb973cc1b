"""The pair: hosts, processes and links of one plan, connected as the topology says, on one clock."""

from random import Random

from colo_compare.compare import Compare
from colo_compare.config import CompareConfig
from colo_frame.config import FrameConfig
from colo_frame.drivers import Flush
from colo_frame.frame import Frame
from colo_mirror.config import MirrorConfig
from colo_mirror.mirror import Mirror
from colo_proto import topology
from colo_proto.messages import Hello, Query
from colo_redirector.config import RedirectorConfig
from colo_redirector.redirector import Redirector
from colo_rewriter.config import RewriterConfig
from colo_rewriter.rewriter import Rewriter

from .apps import BANNER_PORT, Service
from .clock import START, Clock, Trace
from .guests import CopyDriver, Guest
from .host import Host
from .lan import Lan, Weather
from .links import Plain, Reliable, Tap, Wire
from .oracle import Oracle
from .process import Filter, FrameProcess
from .traffic import CALLBACK_PORT, CLIENT_MAC, GUEST_MAC, Traffic


class Pair:
    """See the module. `cores` replaces makers of cores by role (mutants)."""

    def __init__(self, plan, trace=0, cores=None):
        self.plan = plan
        self.clock = Clock()
        self.trace = Trace(trace) if trace else None
        self.dice = Random(f"pair {plan.seed}")
        self.weather = plan.weather
        self.cores = cores or {}
        self.oracle = Oracle(self)
        self.disturbed_at = float("-inf")
        self.disturbances = 0
        self.stops = 0
        """How often a driver has stopped the guests."""
        self.traffic = Traffic(self)
        self._hosts()
        self._processes()
        self._links()
        self.mode = "enforce"

    # -- building --------------------------------------------------------------------------------

    def _hosts(self):
        plan = self.plan
        self.lan = Lan(self, None)
        guests = [Host(side, profile, GUEST_MAC, Random(f"{side} {plan.seed}"), None, Service, (80, BANNER_PORT))
                  for side, profile in (("primary", plan.primary), ("secondary", plan.secondary))]  # fmt: skip
        self.primary, self.secondary = (Guest(self, host) for host in guests)
        self.secondary.host.divergence = plan.twist
        client = Host("client", plan.client, CLIENT_MAC, Random(f"client {plan.seed}"), self.lan.toward_guest)
        client.server, client.ports = self.traffic.callee, frozenset(range(CALLBACK_PORT, CALLBACK_PORT + 100))
        client.datagram = self.traffic.datagram
        self.client = Guest(self, client)
        self.taps = {
            ("primary", "lan"): Tap(self, "lan", self.lan),
            ("primary", "guest"): Tap(self, "guest (primary)", self.primary),
            ("secondary", "guest"): Tap(self, "guest (secondary)", self.secondary),
        }
        self.lan.tap = self.taps["primary", "lan"]
        primary, secondary = (self.taps[side, "guest"].from_host for side in ("primary", "secondary"))
        self.primary.host.send = self._emitting(self.primary.host, primary)
        self.secondary.host.send = self._emitting(self.secondary.host, plan.extras.toward_compare(self, secondary))

    def _emitting(self, host, take):
        note, name = self.note, host.name

        def send(frame):
            note(name, "sends", frame)
            take(frame)

        return send

    def _processes(self):
        plan = self.plan
        self.processes = {}
        for side in topology.SIDES:
            # The secondary has no way to the LAN: a failover is not simulated.
            taps = {"lan": "lan", "guest": "guest"} if side == "primary" else {"guest": "guest"}
            site = topology.Site("/sim", "10.9.0.1", "10.9.0.2", taps)
            for spec in topology.plan(side, plan.wiring, plan.workers, site):
                if spec.role == "netdev":
                    continue
                kind = FrameProcess if spec.role == "frame" else Filter
                self.processes[spec.id] = kind(self, spec, self._maker(spec))
        self.filters = [p for p in self.processes.values() if p.role != "frame"]
        self.frames = {p.side: p for p in self.processes.values() if p.role == "frame"}
        self.compares = [p for p in self.processes.values() if p.role == "compare"]

    def _maker(self, spec):
        options = {name.replace("-", "_"): value for name, value in spec.options.items()}
        for name in ("frame", "notify_dev"):
            options.pop(name, None)
        if spec.role not in ("frame", "compare"):
            options.pop("id", None)
        own = self.cores.get(spec.role)
        if spec.role == "compare":
            config = CompareConfig(**options, **self.plan.compare)
            return lambda process: self.plan.extras.bound((own or Compare)(config))
        if spec.role == "mirror":
            return lambda process: self.plan.extras.bound((own or Mirror)(MirrorConfig(**options)))
        if spec.role == "redirector":
            return lambda process: Redirector(RedirectorConfig(**options))
        if spec.role == "rewriter":
            return lambda process: (own or Rewriter)(RewriterConfig(**options))
        config = FrameConfig(**options)

        def frame(process):
            driver = CopyDriver(self) if self.plan.driver == "copy" and spec.side == "primary" else Flush()
            return Frame(config, process.incarnation, self.clock.now, driver)

        return frame

    def _links(self):
        table = topology.links(self.plan.wiring, self.plan.workers)
        self.links = []
        made = {}
        for link in table:
            if link.optional or link.name in ("control", "peer"):
                continue
            source = self.processes.get(link.source.process)
            target = self.processes.get(link.target.process)
            out, into = link.source.port.replace("-", "_"), link.target.port.replace("-", "_")
            if link.scheme == "tap":
                if source is None:
                    tap = self.taps[link.source.side, link.source.port]
                    tap.reader, tap.port = target, into
                    target.taps.append(tap)
                else:
                    source.links_out[out, None] = self.taps[link.target.side, link.target.port]
                continue
            if link.reliable:
                one = Reliable(self, link, source, out, target, into)
                made[link.name] = one
            else:
                one = Plain(self, link, source, target, into, link.split)
            source.links_out[out, link.target.process if link.split else None] = one
            source.ends.append(one)
            target.ends.append(one)
            self.links.append(one)
        if "red0" in made:
            made["mirror0"].outputs = (made["red0"],)
            made["red0"].inputs = (made["mirror0"],)
        cross, local = self.plan.latency(True), self.plan.latency(False)
        self.to_frames = {
            p.id: (Wire(self, *local, self._at_frame), Wire(self, *local, self._at_filter)) for p in self.filters
        }
        self.peers = {side: Wire(self, *cross, self._at_peer) for side in topology.SIDES}
        self.peer_cut = False
        self.deferred = {"primary": [], "secondary": []}

    # -- control ---------------------------------------------------------------------------------

    def to_frame(self, process, message):
        self.oracle.told(process, message)
        self.to_frames[process.id][0].send((process, message))

    def _at_frame(self, item):
        process, message = item
        frame = self.frames[process.side]
        if frame.alive:
            frame.hear(process.id, message)
        elif self.dice.random() < 0.5 and (process.welcomed or type(message) is Hello):
            # A process that was never welcomed says who it is first, and that message may have been lost.
            self.deferred[process.side].append(item)

    def from_frame(self, frame, process, message):
        self.to_frames[process.id][1].send((process, process.incarnation, message))

    def _at_filter(self, item):
        process, incarnation, message = item
        if message is not None and process.alive and process.incarnation == incarnation:
            process.hear(message)

    def to_peer(self, frame, message):
        if not self.peer_cut:
            self.peers[frame.side].send((frame.side, message))

    def _at_peer(self, item):
        side, message = item
        other = self.frames["secondary" if side == "primary" else "primary"]
        if other.alive:
            other.hear("peer", message)

    def ask(self, what, **args):
        """Send the primary's COLO frame an order, as `colo` on the command line does."""
        frame = self.frames["primary"]
        if frame.alive:
            frame.hear("cli", Query(what, args))

    # -- life ------------------------------------------------------------------------------------

    def begin(self):
        """Start everything, and put the plan on the clock."""
        for process in self.processes.values():
            process.start()
        self.oracle.begin()
        self.traffic.begin()
        for when, what, *arguments in self.plan.faults:
            self.clock.at(START + when, getattr(self, "_fault_" + what), *arguments)

    def start_process(self, process):
        process.start()
        if process.role == "frame":
            deferred, self.deferred[process.side] = self.deferred[process.side], []
            for item in deferred:
                self._at_frame(item)

    def killed(self, process):
        """What else ends when a process dies."""
        self.disturb(f"{process.id} killed")
        self.oracle.killed(process)
        if process.role == "frame":
            for one in self.filters:
                if one.side == process.side:
                    for wire in self.to_frames[one.id]:
                        wire.cut()
            self.peers[process.side].cut()
            if process.side == "primary" and self.primary.host.paused:
                # The driver died with it during a checkpoint; the guests resume with the state that they have.
                self.clock.after(0.2, self.resume_guests, self.stops)
        else:
            for wire in self.to_frames[process.id]:
                wire.cut()
            kept = self.deferred[process.side]
            self.deferred[process.side] = [item for item in kept if item[0] is not process]

    def disturb(self, why):
        """Record an event after which a timeout of identical guests is legitimate."""
        self.disturbed_at = self.clock.now
        self.disturbances += 1
        self.note("world", "disturbed", why)

    def whole(self):
        """True when every process runs and none is paused."""
        if self.peer_cut or self.primary.host.paused or self.secondary.host.paused:
            return False
        return all(process.alive and not process.paused for process in self.processes.values())

    # -- faults ----------------------------------------------------------------------------------

    def _fault_kill(self, name, back_after):
        process = self.processes[name]
        process.kill()
        self.clock.after(back_after, self._revive, process)

    def _revive(self, process):
        if not process.alive:
            self.start_process(process)

    def _fault_pause(self, name, seconds):
        process = self.processes[name]
        process.pause()
        self.disturb(f"{name} paused")
        self.clock.after(seconds, self._unpause, process)

    def _unpause(self, process):
        process.unpause()
        self.disturb(f"{process.id} resumed")

    def _fault_cut(self, seconds):
        """Cut or mend the network between the hosts."""
        self.note("world", "cut for", seconds)
        self.disturb("network cut")
        self.peer_cut = True
        for link in self.links:
            if link.cross:
                link.cut()
        for wire in self.peers.values():
            wire.cut()
        self.clock.after(seconds, self._mend)

    def _mend(self):
        self.note("world", "mended")
        self.disturb("network mended")
        self.peer_cut = False
        for link in self.links:
            if link.cross:
                link.mend()

    def _fault_break(self, number):
        """Reset one connection; it comes back."""
        link = self.links[number % len(self.links)]
        self.note(link.name, "connection reset")
        self.disturb("connection reset")
        link.cut()
        self.clock.after(0.005 + self.dice.random() * 0.05, link.mend)

    def _fault_mode(self, mode):
        self.note("world", "mode", mode)
        self.disturb("mode")
        self.mode = mode
        self.oracle.mode_asked(mode)
        self.ask("mode", mode=mode)

    def _fault_checkpoint(self):
        self.disturb("checkpoint asked for")
        self.oracle.asked = True
        self.ask("checkpoint")

    def _fault_stray(self):
        self.plan.extras.stray(self)

    def _fault_arm(self):
        self.note("secondary", "will differ", self.plan.twist.kind)
        self.plan.twist.armed = True

    def calm_down(self):
        """End all faults: the LAN is intact, every process runs."""
        self.weather = Weather()
        for process in self.processes.values():
            if not process.alive:
                self.start_process(process)
            process.unpause()
        if self.mode != "enforce":
            self._fault_mode("enforce")

    # -- checkpoints -----------------------------------------------------------------------------

    def copy_guest(self):
        self.note("driver", "copies the primary guest")
        self.secondary.host.copy_from(self.primary.host)
        self.oracle.copied()

    def resume_guests(self, stop):
        """Resume the guests, unless they were stopped again meanwhile."""
        if stop == self.stops and self.primary.host.paused:
            self.note("driver", "resumes both guests")
            self.primary.resume()
            self.secondary.resume()

    def to_client(self, frame):
        self.client.arrive(frame)

    # -- what is observed ----------------------------------------------------------------------------

    def seen(self, host, frame):
        """Record that a frame has reached a host."""
        self.note(host.name, "hears", frame)
        self.oracle.reached(host, frame)

    def fed(self, process, port, frames):
        self.oracle.fed(process, port, frames)

    def before(self, process, outputs, why):
        self.oracle.before(process, outputs, why)

    def after(self, process):
        self.oracle.after(process)

    def drive(self, message):
        """Messages for a driver's shell: the simulation's drivers have none."""

    def note(self, who, what, *values):
        if self.trace is not None:
            self.trace.add(self.clock.now, who, what, *values)
