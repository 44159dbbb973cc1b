"""The clients' network, and what it does to frames."""


class Weather:
    """What the LAN does to a frame, as probabilities."""

    def __init__(self, loss=0.0, double=0.0, reorder=0.0):
        self.loss, self.double, self.reorder = loss, double, reorder


class Lan:
    """The clients' network: each direction loses, duplicates, delays and reorders frames as the plan currently says."""

    def __init__(self, world, clients):
        self.world, self.clients = world, clients
        self.tap = None
        self.lost = 0
        self.last = {"in": 0.0, "out": 0.0}

    def toward_guest(self, frame):
        self._carry("in", frame, self.tap.from_host)

    def arrive(self, frame):
        """Carry what the proxy wrote to the client tap."""
        for piece in self.world.plan.on_the_wire(frame):
            self._carry("out", piece, self._deliver)

    def _carry(self, way, frame, take):
        world = self.world
        weather, dice = world.weather, world.dice
        if weather.loss and dice.random() < weather.loss:
            self.lost += 1
            world.note("lan", "lost", frame)
            world.oracle.lan_loses(frame)
            return
        delay = world.plan.lan_delay * (1 + dice.random())
        if weather.reorder and dice.random() < weather.reorder:
            delay += dice.random() * world.plan.reorder_by
        else:
            # In order with the frames before it, except for those that are reordered on purpose.
            delay = max(delay, self.last[way] - world.clock.now)
            self.last[way] = world.clock.now + delay
        world.clock.after(delay, take, frame)
        if weather.double and dice.random() < weather.double:
            world.clock.after(delay + dice.random() * world.plan.reorder_by, take, frame)

    def _deliver(self, frame):
        self.world.to_client(frame)
