"""What clients do with the guest: jobs over TCP, and questions in datagrams that are asked until they are answered."""

from .apps import BANNER, BANNER_PORT, Callee, Job
from .clock import START
from .host import answers
from .plan import CLIENT4_RAW, CLIENT6_RAW, GUEST4_RAW, GUEST6_RAW, TRAFFIC_AT
from .wire import ICMP, ICMP6, TCP, UDP, Route

GUEST_MAC, CLIENT_MAC = bytes.fromhex("02c010000002"), bytes.fromhex("02c010000001")
CALLBACK_PORT = 9000


class Traffic:
    """See the module."""

    def __init__(self, world):
        self.world = world
        self.jobs = {}
        self.asks = {}

    def begin(self):
        """Put the jobs and questions of the plan on the clock."""
        at = self.world.clock.at
        for job in self.world.plan.jobs:
            if not job[9]:
                at(START + job[1], self._begin_job, job)
        for ask in self.world.plan.datagrams:
            at(START + ask[0], self._ask, ask, 0)

    # -- jobs --------------------------------------------------------------------------------------

    def _begin_job(self, plan):
        name, _, kind, n, m, key, flags, six, port, _ = plan
        now = self.world.clock.now
        job = self.jobs[name] = Job(name, kind, n, m, key, flags, CALLBACK_PORT + port % 100)
        if kind == b"C":
            job.callee = Callee(job)
        src, dst = (CLIENT6_RAW, GUEST6_RAW) if six else (CLIENT4_RAW, GUEST4_RAW)
        service = BANNER_PORT if flags & BANNER else 80
        route = Route(TCP, src, dst, port, service, (CLIENT_MAC, GUEST_MAC), self.world.plan.tag)
        self.world.note("client", "begins", name)
        self.world.client.host.connect(route, now, job)
        self.world.client.arm()
        self._watch(plan, job)

    def _watch(self, plan, job):
        """Begin the jobs that wait for this one a moment after its end."""
        for after in self.world.plan.jobs:
            if after[9] == plan[0]:
                if job.finished():
                    self.world.clock.after(0.05, self._begin_job, after)
                else:
                    self.world.clock.after(0.25, self._watch, plan, job)

    def callee(self, key):
        """The client's application for a connection that the guest opens."""
        for job in self.jobs.values():
            if job.callee is not None and job.port == key[1] and job.callee.sock is None:
                return job.callee
        return Callee(Job("nobody", b"D", 0, 0, 0, 0, 0))

    # -- questions ---------------------------------------------------------------------------------

    def _ask(self, ask, tries):
        _, service, number, count, size, six, port = ask
        src, dst = (CLIENT6_RAW, GUEST6_RAW) if six else (CLIENT4_RAW, GUEST4_RAW)
        macs = (CLIENT_MAC, GUEST_MAC)
        if service == "echo":
            route = Route(ICMP6 if six else ICMP, src, dst, 0, 0, macs, self.world.plan.tag)
            body = port.to_bytes(2, "big") + number.to_bytes(2, "big") + bytes(size)
            frame = route.icmp(128 if six else 8, 0, body)
            wants = {body}
        else:
            route = Route(UDP, src, dst, port, service, macs, self.world.plan.tag)
            payload = number.to_bytes(4, "big") + bytes((count,)) + size.to_bytes(2, "big")
            frame = route.udp(payload)
            wants = set(answers(payload)) if service != 9 else {"unreachable"}
        entry = self.asks.setdefault((service, number), {"wants": wants, "tries": 0})
        if entry["wants"] and tries < 20:
            entry["tries"] = tries + 1
            self.world.lan.toward_guest(frame)
            self.world.clock.after(1.0 + tries * 0.5, self._ask, ask, tries + 1)

    def datagram(self, key, payload, now):
        """A datagram has reached the client: it may be what a question waits for."""
        for (service, _), entry in self.asks.items():
            wants = entry["wants"]
            if payload in wants:
                wants.discard(payload)
                return
            if service == 9 and key[0] in (ICMP, ICMP6) and key[2] in (1, 3) and wants:
                wants.clear()
                return

    # -- the end -----------------------------------------------------------------------------------

    def finished(self):
        """True when every job has finished and every question is answered."""
        if len(self.jobs) < len(self.world.plan.jobs) or self.world.clock.now < START + TRAFFIC_AT + 4:
            return False
        return all(job.finished() for job in self.jobs.values()) and not any(e["wants"] for e in self.asks.values())
