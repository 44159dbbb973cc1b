"""The hosts of the pair on its clock, and the driver that stops both guests, copies one, and resumes them."""

from colo_frame.drivers import Step, Verdict


class Guest:
    """A host behind a tap, with its timers on the clock."""

    def __init__(self, world, host):
        self.world, self.host = world, host
        self.due = None

    def arrive(self, frame):
        self.world.seen(self.host, frame)
        self.host.receive(frame, self.world.clock.now)
        self.arm()

    def arm(self):
        due = self.host.deadline()
        if due is not None and (self.due is None or due < self.due):
            self.due = due
            self.world.clock.at(due, self._tick, due)

    def _tick(self, due):
        if due != self.due:
            return
        self.due = None
        self.host.tick(self.world.clock.now)
        self.arm()

    def pause(self):
        self.host.paused = True

    def resume(self):
        self.host.resume(self.world.clock.now)
        self.arm()


class CopyDriver:
    """A driver that copies the primary guest's state: stop both guests, copy, resume, report."""

    name = "copy"
    copies_state = True

    def __init__(self, world):
        self.world = world
        self.verdict_at = None
        self.copied = False

    def start(self, epoch, now):
        world = self.world
        world.note("driver", "stops both guests", epoch)
        world.stops += 1
        world.primary.pause()
        world.secondary.pause()
        self.copied = False
        copy_at = now + 0.01 + world.dice.random() * 0.1
        self.verdict_at = copy_at + world.dice.random() * 0.005
        world.clock.at(copy_at, self._copy, world.stops)
        return Step([])

    def _copy(self, stop):
        """Copy only if the guests are still stopped: when a driver dies, the guests resume."""
        world = self.world
        if stop == world.stops and world.primary.host.paused:
            world.copy_guest()
            self.copied = True

    def hear(self, message, now):
        return Step([])

    def deadline(self):
        return self.verdict_at

    def on_timer(self, now):
        if self.verdict_at is None or now < self.verdict_at:
            return Step([])
        self.verdict_at = None
        self.world.clock.after(self.world.dice.random() * 0.01, self.world.resume_guests, self.world.stops)
        return Step([], Verdict(ok=self.copied, state_copied=self.copied))
