"""What a seed means: how the pair is built, how its hosts behave, its traffic and its faults.

A plan is drawn from a random generator of its own; the run itself draws from another one (`Pair.dice`), so a plan can
be read and changed without running it. Times are seconds after the start.
"""

from random import Random

from .apps import BANNER, GUEST_CLOSES
from .extras import Extras
from .host import Profile
from .lan import Weather
from .wire import read

KINDS = ("calm", "broken", "diverging", "storm")
_WEIGHTS = (45, 30, 15, 10)

TRAFFIC_AT = 1.5
"""By then every process has been welcomed."""
FAULTS_END = 9.0

CLIENT4, CLIENT6 = (10, 0, 0, 9), "fd00::9"
GUEST4_RAW, CLIENT4_RAW = bytes((10, 0, 0, 2)), bytes((10, 0, 0, 9))
GUEST6_RAW = bytes.fromhex("fd000000000000000000000000000002")
CLIENT6_RAW = bytes.fromhex("fd000000000000000000000000000009")


class Twist:
    """A single difference between the secondary's output and the primary's, once it is armed."""

    KINDS = ("byte", "longer", "shorter", "silent", "missing_fin", "datagram", "datagram_missing")
    """There is also "early_end", which `extras` chooses."""

    def __init__(self, kind, dice):
        self.kind, self.dice = kind, dice
        self.armed = False
        self.hit = None
        """(identity of the socket, position) of the first difference; True for datagrams."""

    def said(self, sock, data):
        if self.hit is not None:
            return b"" if self.kind in ("silent", "early_end") and self.hit[0] == sock.ident else data
        if not self.armed or not data or self.kind not in ("byte", "longer", "shorter", "silent", "early_end"):
            return data
        at = self.dice.randrange(len(data))
        self.hit = (sock.ident, len(sock.out) + len(sock.todo) + at + 1)
        if self.kind == "byte":
            return data[:at] + bytes((data[at] ^ 0x20,)) + data[at + 1 :]
        if self.kind == "longer":
            return data[:at] + b"?!" + data[at:]
        sock.closing = sock.closing or self.kind == "early_end"
        return data[:at] + (data[at + 1 :] if self.kind == "shorter" else b"")

    def keeps_open(self, sock):
        """True when this socket is not to be closed."""
        if self.hit is not None:
            return self.kind in ("silent", "missing_fin") and self.hit[0] == sock.ident
        if self.armed and self.kind == "missing_fin":
            self.hit = (sock.ident, len(sock.out) + len(sock.todo) + 1)
            return True
        return False


class Plan:
    """See the module. `kind` and `extras` override what the seed would choose."""

    def __init__(self, seed, kind=None, extras=None):
        self.seed = seed
        d = self.dice = Random(f"plan {seed}")
        chosen = d.choices(KINDS, _WEIGHTS)[0]
        self.kind = kind or chosen
        self.wiring = d.choice(("faithful", "faithful", "lean"))
        self.workers = d.choice((1, 1, 2, 3))
        self.driver = d.choice(("flush", "flush", "copy"))
        self.compare = {}
        self.read_delay = d.choice((0.0, 0.0001, 0.002))
        self.pending_batches = d.choice((2, 16, 64))
        self.ring_bytes = d.choice((1 << 26, 1 << 26, 1 << 16)) if self.kind in ("broken", "storm") else 1 << 26
        self.cross = d.choice((0.00005, 0.0005, 0.005))
        self.local = d.choice((0.00003, 0.0001))
        self.lan_delay = d.choice((0.0001, 0.001, 0.01))
        self.reorder_by = self.lan_delay * d.choice((2, 10)) + 0.001
        self.mtu_clients = d.random() < 0.5
        self.tag = d.choice((None, None, None, 7))
        self.weather = Weather()
        if self.kind in ("calm", "storm") or d.random() < 0.3:
            self.weather = d.choice(
                (
                    Weather(),
                    Weather(loss=0.01, double=0.01, reorder=0.05),
                    Weather(loss=0.05, double=0.03, reorder=0.1),
                    Weather(reorder=0.3),
                    Weather(double=0.2),
                    Weather(loss=0.15),
                )
            )
        self._hosts(d)
        self.jobs = self._jobs(d)
        self.datagrams = self._datagrams(d)
        self.faults = []
        self.twist = None
        if self.kind in ("broken", "storm"):
            self._faults(d)
        if self.kind in ("diverging", "storm"):
            self.twist = Twist(d.choice(Twist.KINDS), Random(f"twist {seed}"))
            self.faults.append((TRAFFIC_AT + d.random() * 3, "arm"))
        self.extras = extras or Extras(seed)
        self.extras.apply(self)
        self.faults += [(when, "stray") for when in self.extras.strays_at]
        self.faults.sort(key=lambda fault: fault[0])

    def latency(self, cross):
        base = self.cross if cross else self.local
        return base, base * 2

    # -- hosts -----------------------------------------------------------------------------------

    def _hosts(self, d):
        system = {
            "mss_option": d.choice((1460, 1460, 1220, 536)),
            "wscale": d.choice((None, 0, 2, 7, 7)),
            "sack": d.random() < 0.75,
            "ts": d.random() < 0.7,
            "cookies": d.random() < 0.1,
        }
        self.client = Profile(
            mss_option=d.choice((1460, 1460, 536)),
            mss=d.choice((1460, 1448, 700)),
            wscale=d.choice((None, 0, 5, 7)),
            sack=d.random() < 0.8,
            ts=d.random() < 0.8,
            ts_base=d.getrandbits(32),
            rcvbuf=d.choice((4096, 16384, 65536, 65536)),
            delack=d.choice((0.0, 0.04, 0.2)),
            gso=d.choice((0, 0, 16384)),
            partial=d.random() < 0.3,
            iw=d.choice((2, 10)),
            nagle=d.random() < 0.3,
            min_rto=d.choice((0.2, 0.3)),
            probe_byte=d.random() < 0.5,
            keepalive=4.0,
        )
        if d.random() < 0.2:
            self.client.read_chunk, self.client.read_every = d.choice(((1000, 0.01), (300, 0.02), (5000, 0.1)))
        self.primary = self._guest(d, system)
        self.secondary = self._guest(d, system)

    def _guest(self, d, system):
        mss = system["mss_option"]
        profile = Profile(
            **system,
            mss=min(mss, d.choice((1460, 1448, 1000, 512))),
            ts_base=d.getrandbits(32),
            rcvbuf=d.choice((4096, 16384, 65536, 65536, 131072)),
            delack=d.choice((0.0, 0.04, 0.1)),
            gso=d.choice((0, 0, 4000, 16384, 60000)),
            partial=d.random() < 0.4,
            min_rto=d.choice((0.2, 0.25)),
            iw=d.choice((1, 4, 10)),
            nagle=d.random() < 0.3,
            probe_byte=d.random() < 0.5,
            write_chunk=d.choice((65536, 65536, 4000, 600)),
            thread_delay=d.choice((0.0, 0.01, 0.04)),
        )
        if d.random() < 0.25:
            profile.read_chunk, profile.read_every = d.choice(((2000, 0.005), (1000, 0.01), (4000, 0.05)))
        if d.random() < 0.15:
            profile.keepalive, profile.keep_byte = 0.4 + d.random(), d.random() < 0.5
        return profile

    # -- traffic ---------------------------------------------------------------------------------

    def _jobs(self, d):
        """(name, when, kind, n, m, key, flags, IPv6?, client port, what must be over before)."""
        jobs = []
        for number in range(d.randint(2, 6)):
            kind = d.choice((b"D", b"D", b"U", b"U", b"E", b"R", b"H", b"B", b"A", b"X", b"C"))
            n, m = d.choice((1, 700, 5000, 20000, 40000)), d.choice((1, 3000, 15000))
            flags = (GUEST_CLOSES if d.random() < 0.5 else 0) | (BANNER if d.random() < 0.15 else 0)
            if kind == b"R":
                n, m = d.randint(3, 40), d.choice((1, 1, 4))
            elif kind == b"X":
                n, m = max(n, 2000), 1000
            elif kind in b"UEHB":
                n = min(n, 20000)
            when = TRAFFIC_AT + d.random() * 2.5
            port = 4000 + number
            job = (f"j{number}{kind.decode()}", when, kind, n, m, d.randrange(1 << 20), flags, d.random() < 0.35, port)
            jobs.append((*job, ""))
            if d.random() < 0.2:
                # Use the same ports again, with new numbers.
                again = (f"{job[0]}+", 0.0, b"D", d.choice((10, 3000)), 0, d.randrange(1 << 20), flags & GUEST_CLOSES)
                jobs.append((*again, job[7], port, job[0]))
        return jobs

    def _datagrams(self, d):
        """(when, service, number of request, answers, size, IPv6?, client port)."""
        asks = []
        for group in range(d.choice((0, 1, 1, 2))):
            service = d.choice((53, 54, 54, "echo", 9))
            start, six, port = TRAFFIC_AT + d.random() * 2, d.random() < 0.35, 6000 + group
            for number in range(d.randint(1, 25)):
                when = start + number * d.choice((0.0, 0.001, 0.05))
                asks.append(
                    (when, service, group * 100 + number, d.choice((1, 1, 1, 2, 3)), d.choice((4, 60, 900)), six, port)
                )
        return asks

    # -- faults ----------------------------------------------------------------------------------

    def _faults(self, d):
        names = ["m0", "rew0", *(f"comp{i}" for i in range(self.workers)), "frame-p", "frame-s"]
        if self.wiring == "faithful":
            names += ["redire0", "redire1", "f1", "f2"]
        elif self.workers > 1:
            names.append("redire1")
        for _ in range(d.choice((1, 1, 2, 3))):
            when = TRAFFIC_AT + d.random() * 4
            what = d.choice(("kill", "kill", "kill", "pause", "cut", "cut", "break", "both", "mode", "checkpoint"))
            if what == "kill":
                self.faults.append((when, "kill", d.choice(names), 0.05 + d.random() * d.choice((0.2, 1.5, 1.5, 8.0))))
            elif what == "both":
                # Both ends of the mirror link at once, so that no process remembers what was on it.
                for name in ("m0", "f1" if self.wiring == "faithful" else "rew0"):
                    self.faults.append((when, "kill", name, 0.05 + d.random() * 0.3))
            elif what == "pause":
                self.faults.append((when, "pause", d.choice(names), 0.05 + d.random() * d.choice((0.2, 1.5))))
            elif what == "cut":
                self.faults.append((when, "cut", 0.02 + d.random() * d.choice((0.2, 2.5))))
            elif what == "break":
                self.faults.append((when, "break", d.randrange(100)))
            elif what == "mode":
                self.faults.append((when, "mode", d.choice(("shadow", "bypass"))))
                self.faults.append((when + 0.1 + d.random() * 2, "mode", "enforce"))
            else:
                self.faults.append((when, "checkpoint"))

    # -- the LAN ---------------------------------------------------------------------------------

    def on_the_wire(self, frame):
        """The frames on the LAN for a frame that the proxy wrote: segments of MTU size if there is a real wire."""
        if not self.mtu_clients or frame[1] == 0:
            return [frame]
        from colo_proto.net.offload import to_plain

        return [bytes(10) + piece for piece in to_plain(frame)]

    def describe(self):
        """The plan in a few lines."""
        c, p, s = self.client, self.primary, self.secondary
        lines = [
            f"seed {self.seed}: {self.kind}, {self.wiring}, {self.workers} compare, driver {self.driver}",
            f"  lan       loss {self.weather.loss} double {self.weather.double} reorder {self.weather.reorder}",
            f"  client    {_differences(c)}",
            f"  primary   {_differences(p)}",
            f"  secondary {_differences(s)}",
        ]
        lines += [
            f"  job {name} at {when:.2f}: n={n} m={m} flags={flags} v6={six} port {port} after {after!r}"
            for name, when, _, n, m, _, flags, six, port, after in self.jobs
        ]
        if self.datagrams:
            lines.append(f"  {len(self.datagrams)} datagram requests, first {self.datagrams[0]}")
        lines.append(f"  extras {self.extras.describe()}")
        lines += [f"  fault {f}" for f in self.faults]
        if self.twist:
            lines.append(f"  the secondary will differ: {self.twist.kind}")
        return "\n".join(lines)


def _differences(profile):
    usual = vars(Profile())
    return " ".join(f"{k}={v}" for k, v in vars(profile).items() if v != usual[k]) or "as usual"


__all__ = ["Plan", "read"]
