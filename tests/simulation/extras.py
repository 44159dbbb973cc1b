"""What may happen in addition to a plan. It has random numbers of its own, so that old seeds keep their meaning.

====  ==============================================================================================
 reordering     frames of the secondary guest overtake each other on their way to the rewriter and to compare
 early end      the secondary's stream ends where the primary's continues
 narrow         the secondary offers a far smaller window than the primary, and reads slowly
 share          each connection may have only so much under way, as if there were hundreds
 cookies        each guest changes the secret of its SYN cookies by itself, between two answers to one client
 stray SYNs     SYNs with a client's address arrive on its open connections, with any number or one near those in use
====  ==============================================================================================
"""

from random import Random

from colo_mirror.mirror import Mirror
from colo_proto.share import Share

from .lan import Weather
from .tcb import ESTAB
from .wire import M32, SYN, TCP, Route

STRAY_OPTIONS = b"\x02\x04\x05\xb4\x01\x03\x03\x07"
NEAR = 65536
"""A SYN this far below the numbers in use may belong to a new connection, judged by numbers alone."""


class Extras:
    """See the module."""

    def __init__(self, seed):
        d = self.dice = Random(f"extras {seed}")
        self.reorder = d.choice((0.0, 0.0, 0.02, 0.1, 0.3))
        self.reorder_by = d.choice((0.001, 0.01, 0.03))
        self.early_end = d.random() < 0.4
        self.cookies = d.choice((0.02, 0.3, 1.1)) if d.random() < 0.1 else 0.0
        self.strays = d.choice((0, 0, 0, 2, 6))
        self.narrow = d.choice((2048, 4096)) if d.random() < 0.15 else 0
        more = Random(f"share {seed}")
        self.share = more.choice((2000, 6000, 20000)) if more.random() < 0.2 else 0

    @classmethod
    def none(cls):
        """Extras in which nothing happens in addition."""
        extras = cls(0)
        extras.reorder = extras.cookies = 0.0
        extras.early_end, extras.strays, extras.narrow, extras.share = False, 0, 0, 0
        return extras

    def apply(self, plan):
        """Change the plan itself."""
        if (
            self.early_end
            and plan.twist is not None
            and plan.twist.kind in ("byte", "shorter", "longer", "missing_fin")
        ):
            plan.twist.kind = "early_end"
        if self.narrow:
            plan.secondary.rcvbuf = self.narrow
            plan.secondary.read_chunk, plan.secondary.read_every = self.dice.choice(((1000, 0.05), (2000, 0.2)))
        if self.cookies:
            # A client is answered twice only if a frame is lost or duplicated.
            plan.weather = self.dice.choice((Weather(loss=0.2), Weather(double=0.5, reorder=0.05)))
            for profile in (plan.primary, plan.secondary):
                profile.cookies, profile.cookies_change = True, self.cookies * self.dice.choice((1, 1.3, 0))
        self.strays_at = sorted(
            (
                plan.jobs[self.dice.randrange(len(plan.jobs))][1]
                + self.dice.choice((0.05, 0.2, 1.0)) * self.dice.random()
            )
            for _ in range(self.strays)
        )

    def bound(self, core):
        """The core of a mirror or a compare, in which each connection has only its share of what all may send."""
        if self.share:
            (core.windows if isinstance(core, Mirror) else core.ledger).share = Share(self.share, self.share)
        return core

    def describe(self):
        """The extras as one line of text."""
        usual = vars(Extras.none())
        return " ".join(f"{k}={v}" for k, v in vars(self).items() if k != "dice" and v and v != usual.get(k))

    def toward_compare(self, world, send):
        """A `send` (by which a frame leaves the secondary guest) that lets frames overtake each other."""
        if not self.reorder:
            return send

        def late(frame):
            if self.dice.random() < self.reorder:
                world.clock.after(self.dice.random() * self.reorder_by, send, frame)
            else:
                send(frame)

        return late

    def stray(self, world):
        """A SYN with the address of a client that has an open connection."""
        others = world.secondary.host.state.sockets
        d = self.dice
        for key, sock in world.primary.host.state.sockets.items():
            other = others.get(key)
            if sock.state != ESTAB or other is None or other.state != ESTAB or sock.ident[0] != "in":
                continue
            if d.random() < 0.5:
                seq = sock.irs + sock.rcv - d.randrange(1, NEAR)
            else:
                seq = sock.irs + sock.rcv - d.randrange(1, 1 << 31)
            src, sport, dst, dport = key[2], key[3], key[0], key[1]
            back = sock.route.eth
            route = Route(TCP, src, dst, sport, dport, (back[:6], back[6:12]), sock.route.tag)
            options = STRAY_OPTIONS if d.random() < 0.5 else b""
            world.note("stranger", "sends a SYN", seq & M32)
            world.oracle.strayed.add(("in", *key, seq & M32))
            world.lan.toward_guest(route.tcp(seq & M32, 0, SYN, 4096, options, b""))
            return
