"""A core as a process: it can be killed with all its state, started again, and paused; it has a link to its COLO frame.

`Filter` does what `colo_runtime.filtershell` and `colo_runtime.control` do around a core, `FrameProcess` what
`colo_frame.shell` does around the core of the COLO frame.
"""

from colo_proto.core import Log, Send, Tell
from colo_proto.messages import CheckpointDone, CheckpointWanted, Hello, Reason, Report, Welcome, WorkerTable
from colo_proto.shard import Splitter

HELLO_EVERY = 1.0
SILENCE = 3.0


class Process:
    """What both kinds of processes have in common."""

    def __init__(self, world, spec, make):
        self.world, self.spec, self.make = world, spec, make
        self.id, self.role, self.side = spec.id, spec.role, spec.side
        self.core = None
        self.incarnation = 0
        self.alive = self.paused = False
        self.inbox = []
        self.links_out = {}
        self.ends = []
        """Links that must be told when this process starts and ends."""
        self.taps = []
        self.due = None
        self.starts = 0
        self.woke_at = float("-inf")
        """When it was last resumed. What came while it was paused is handled at that time, then timers in their order.
        """

    def start(self):
        world = self.world
        self.starts += 1
        self.incarnation = world.dice.getrandbits(60) + 1
        self.alive, self.paused = True, False
        self.inbox = []
        self.due = None
        self.core = self.make(self)
        world.note(self.id, "started")
        self.began()
        for link in self.ends:
            link.end_up(self)
        for tap in self.taps:
            tap.wake()
        self.arm()

    def kill(self):
        if not self.alive:
            return
        self.world.note(self.id, "killed")
        self.world.killed(self)
        self.alive = self.paused = False
        self.core = None
        self.inbox = []
        for link in self.ends:
            link.end_down(self)

    def pause(self):
        if self.alive and not self.paused:
            self.world.note(self.id, "paused")
            self.paused = True

    def unpause(self):
        if not self.alive or not self.paused:
            return
        self.world.note(self.id, "resumed")
        self.paused = False
        self.woke_at = self.world.clock.now
        inbox, self.inbox = self.inbox, []
        for call, arguments in inbox:
            call(*arguments)
        for tap in self.taps:
            tap.wake()
        self.arm()

    def later(self, call, *arguments):
        """Pause the process: its input waits."""
        self.inbox.append((call, arguments))

    def arm(self):
        """Ask the clock for the core's next deadline."""
        due = self.core.deadline()
        if due is not None and (self.due is None or due < self.due):
            self.due = due
            self.world.clock.at(due, self._timer, self.incarnation, due)

    def _timer(self, incarnation, due):
        if incarnation != self.incarnation or not self.alive or due != self.due:
            return
        if self.paused:
            self.later(self._timer, incarnation, due)
            return
        self.due = None
        now = self.world.clock.now
        wanted = self.core.deadline()
        if wanted is not None and wanted <= now:
            self.did(self.core.on_timer(now), "timer")
        if self.alive:
            self.arm()


class Filter(Process):
    """Any process except for the COLO frames."""

    def began(self):
        self.splitter = Splitter()
        self.welcomed = False
        self.heard = float("-inf")
        self.frame_incarnation = 0
        self._beat(self.incarnation)

    def take(self, port, frames):
        """Handle frames that arrive."""
        if self.paused:
            self.later(self.take, port, frames)
            return
        world = self.world
        outputs = self.core.receive(port, frames, world.clock.now)
        world.fed(self, port, frames)
        self.did(outputs, port)
        self.arm()

    def did(self, outputs, why):
        world = self.world
        world.before(self, outputs, why)
        for output in outputs:
            kind = type(output)
            if kind is Send:
                self._send(output)
            elif kind is Tell:
                self._tell(output.message)
            elif kind is Log:
                world.note(self.id, output.event, output.fields)
        world.after(self)

    def _send(self, output):
        link = self.links_out.get((output.port, None))
        if link is not None:
            link.send(output.frames)
            return
        # A split output: the link decides, as `colo_runtime.splitlink` does. Without a table the frames are lost.
        for worker, frames in self.splitter.split(output.frames).items():
            link = self.links_out.get((output.port, worker))
            if link is not None:
                link.send(frames)
            else:
                self.world.disturb(f"{self.id}.{output.port}: nobody at {worker}")

    # -- the control link ------------------------------------------------------------------------

    def gap(self, port, sequence):
        """A reliable input has lost frames permanently."""
        self._tell(CheckpointWanted(Reason.MIRROR_GAP, detail={"port": port}, source=self.id))

    def _tell(self, message):
        if not self.welcomed:
            # The COLO frame that receives this may not know this process yet.
            self.world.to_frame(self, Hello(self.role, self.id, self.incarnation, frame=self.frame_incarnation))
        self.world.to_frame(self, message)

    def _beat(self, incarnation):
        if incarnation != self.incarnation or not self.alive:
            return
        world = self.world
        if not self.paused:
            if not self.welcomed or world.clock.now - self.heard > SILENCE:
                world.to_frame(self, Hello(self.role, self.id, self.incarnation, frame=self.frame_incarnation))
            if self.welcomed:
                self._report()
        world.clock.after(HELLO_EVERY, self._beat, incarnation)

    def _report(self):
        gauges = self.core.gauges()
        if self.splitter.version >= 0 and self.role != "compare":
            gauges["table_version"] = self.splitter.version
        self.world.to_frame(self, Report(self.role, self.id, self.incarnation, {}, gauges))

    def hear(self, message):
        """The COLO frame has sent a message."""
        if self.paused:
            self.later(self.hear, message)
            return
        now = self.world.clock.now
        self.heard = now
        if isinstance(message, Welcome):
            if self.welcomed and message.incarnation != self.frame_incarnation:
                known = self.frame_incarnation
                self.world.to_frame(self, Hello(self.role, self.id, self.incarnation, frame=known))
            self.frame_incarnation = message.incarnation
            if not self.welcomed:
                self.welcomed = True
                self._report()
        elif isinstance(message, CheckpointDone):
            self.world.note(self.id, "checkpoint done", message.epoch, message.state_copied)
        elif isinstance(message, WorkerTable):
            self.world.note(self.id, "table", message.version, message.workers)
            self.splitter.table(message)
        self.did(self.core.tell(message, now), message)
        self.arm()


class FrameProcess(Process):
    """The COLO frame of one host. `peers` is the other one."""

    other = None

    def began(self):
        self.known = set()
        """Processes that have said Hello and were welcomed; they receive the messages to all processes."""

    def hear(self, sender, message):
        if self.paused:
            self.later(self.hear, sender, message)
            return
        outputs = self.core.hear(sender, message, self.world.clock.now)
        if type(message) is Hello and any(type(one) is Tell and one.to == sender for one in outputs):
            self.known.add(sender)
        self.did(outputs, message)
        self.arm()

    def did(self, outputs, why):
        world = self.world
        for output in outputs:
            if type(output) is Tell:
                if output.to == "peer":
                    world.to_peer(self, output.message)
                elif output.to == "*":
                    for process in world.filters:
                        if process.side == self.side:
                            # Draw for all of them, so that a seed keeps its meaning.
                            known = process.id in self.known
                            world.from_frame(self, process, output.message if known else None)
                elif output.to in world.processes:
                    world.from_frame(self, world.processes[output.to], output.message)
                elif output.to == "driver":
                    world.drive(output.message)
            elif type(output) is Log:
                world.note(self.id, output.event, output.fields)
        world.after(self)
