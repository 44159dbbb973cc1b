"""The invariants (docs/design.md explains them), judged by what the processes have counted. Pure.

`held`: the counters show that the invariant holds. `violated`: they contradict it. `unknown`: they cannot tell, because
a process was killed and its counts are lost, because a mode suspends the rule, or because nobody captured on the LAN.

====  ====================================================================================
S1    every frame that compare released has a cause
S2    about the bytes that the client gets. Only a program that checks these bytes (a test, the demo) can tell, so this
      is always `unknown` here
S3    in every connection that continued after a failover, as captured on the client LAN, the next byte that the client
      expected arrived, and the ACK number did not go back
S4    no gap on the mirror link was left open: the secondary has missed no frame, or a checkpoint was wanted
S5    nobody but the primary side wrote to the client LAN. With a capture there: the guest was heard from
      one host's port, then from the other's, and never again from the first (symmetric wiring: not until it was silent
      for a while, and no more often than there were failovers)
S6    compare: frames in + taken over = released - synthesized + dropped + held + handed over, on both sides
      (a secondary frame that was cut in pieces counts as `secondary_split`); and on every ZeroMQ link of frames:
      given to it = taken from it + dropped by it for a reason + found missing by its receiver
L1    the oldest held frame is younger than compare_timeout + one scan, or a checkpoint is wanted
E2    both guests ran the same command, and no checkpoint was wanted
====  ====================================================================================
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from colo_lab.observed import Process, gaps, labelled, summed, total, wanted
from colo_proto.messages import Mode
from colo_proto.topology import End, Wiring, links

HELD, VIOLATED, UNKNOWN = "held", "violated", "unknown"
HELD_AT_MOST_MS: Final = 3000 + 1000
"""Milliseconds after which compare must have asked for a checkpoint, unless it reports another time (`asks_after_ms`):
its default timeout and one scan for frames that are too old.
"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`held`, `violated` or `unknown`, and why."""

    verdict: str
    why: str


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that the verdicts are based on."""

    mode: str
    same_guests: bool
    settled: bool
    """The counters have stopped changing. While frames are under way, sums over several processes cannot agree."""
    processes: Sequence[Process]
    wiring: Wiring = "faithful"
    lan: dict[str, Any] | None = None
    """What the capture on the client LAN has seen (`colo_lab.lanwatch`)."""
    failovers: int | None = None
    """How many failovers there were in the symmetric wiring; None in the other ones."""

    def of(self, role: str) -> list[Process]:
        """The processes of a role."""
        return [process for process in self.processes if process.role == role]

    def wanted(self) -> int:
        """How many checkpoints were wanted, for whatever reason."""
        return sum(wanted(self.processes).values())


def judge(facts: Facts) -> dict[str, Verdict]:
    """Judge all invariants. A rule is only applied when the counters of all processes that it needs are complete."""
    verdicts = {}
    for name, (rule, roles) in _RULES.items():
        incomplete = next(filter(None, (_incomplete(facts.of(role)) for role in roles)), "")
        verdicts[name] = Verdict(UNKNOWN, incomplete) if incomplete else rule(facts)
    return verdicts


def _incomplete(processes: Sequence[Process]) -> str:
    """Why the counters of these processes cannot be relied on; empty when they can."""
    if not processes:
        return "there is no such process"
    for process in processes:
        if not process.reported:
            return f"{process.id} has never reported"
        if not process.complete:
            return f"{process.id} was restarted or killed, and its last counts are lost"
    return ""


def _s1(facts: Facts) -> Verdict:
    if facts.mode != Mode.ENFORCE:
        return Verdict(UNKNOWN, f"mode {facts.mode} releases without comparing")
    counters, _ = total(facts.processes, "compare")
    released, causes = counters["released"], labelled(counters, "released")
    if released != sum(causes.values()):
        return Verdict(VIOLATED, f"{released} frames released, {sum(causes.values())} with a cause")
    if min(causes.values(), default=0) < 0:
        return Verdict(VIOLATED, "more frames have a cause than were released")
    if causes.get("mode"):
        return Verdict(UNKNOWN, f"the mode let {causes['mode']} frames pass")
    text = ", ".join(f"{n} {cause}" for cause, n in causes.items())
    return Verdict(HELD, f"every released frame has a cause: {text or 'none was released'}")


def _s2(_facts: Facts) -> Verdict:
    return Verdict(UNKNOWN, "the client's bytes were not looked at")


def _s3(facts: Facts) -> Verdict:
    lan = facts.lan
    if lan is None or not lan["changes"]:
        return Verdict(UNKNOWN, "there was no failover, or no capture of it")
    if lan["lost"]:
        # A frame that the capture has missed looks like a frame that was never sent.
        return Verdict(UNKNOWN, f"the capture on the LAN missed {lan['lost']} frames")
    if lan["broken"]:
        return Verdict(VIOLATED, "; ".join(lan["broken"]))
    return Verdict(HELD, f"{sum(one['continued'] for one in lan['changes'])} connections continued where they were")


def _s4(facts: Facts) -> Verdict:
    missed, requests = gaps(facts.processes), facts.wanted()
    if missed:
        verdict = HELD if requests else VIOLATED
        return Verdict(verdict, f"{missed} mirrored frames missed, {requests} checkpoints wanted")
    # Where mirrored frames leave a process: the mirror's copies, f1's output, the rewriter's output to the guest.
    outputs = {"m0": "link.outdev.dropped", "f1": "link.netdev.dropped", "rew0": "link.netdev.dropped"}
    names = ((process, process.id.removesuffix("-s")) for process in facts.processes)
    dropped = sum(process.counters[outputs[name]] for process, name in names if name in outputs)
    if dropped and not requests:
        return Verdict(VIOLATED, f"{dropped} mirrored frames dropped, no checkpoint wanted")
    return Verdict(HELD, "no gap on the mirror link")


def _s5(facts: Facts) -> Verdict:
    if facts.lan is not None:
        late, text = facts.lan["late"], ", ".join(f"{n} from {port}" for port, n in sorted(facts.lan["frames"].items()))
        if late:
            return Verdict(VIOLATED, f"captured on the LAN: {late} frames from a port that had been left ({text})")
        changes = len(facts.lan["changes"])
        if facts.failovers is not None and changes > facts.failovers:
            return Verdict(
                VIOLATED, f"captured on the LAN: the port changed {changes} times in {facts.failovers} failovers"
            )
        if facts.lan["lost"]:
            return Verdict(UNKNOWN, f"the capture on the LAN missed {facts.lan['lost']} frames")
        return Verdict(HELD, f"captured on the LAN, one port after the other: {text or 'nothing'}")
    writers = sorted({process.host for process in facts.processes if process.host != "host-p" and _writes_lan(process)})
    if writers:
        return Verdict(VIOLATED, f"written to by {', '.join(writers)}")
    return Verdict(HELD, "only the primary side has the client tap open for writing")


def _writes_lan(process: Process) -> bool:
    """True when it has written frames of the guest to the client LAN. A claim of the COLO frame does not count."""
    counters = process.counters
    return summed(counters, "tap.lan", ".written") > counters["link.claims.written"]


def _s6(facts: Facts) -> Verdict:
    compares = facts.of("compare")
    for process in compares:
        counters, gauges = process.counters, process.gauges
        into = counters["frames_primary"] + counters["taken_over"]
        out = counters["released"] - counters["synthesized"] + counters["handed_over"]
        dropped, held = summed(counters, "dropped."), gauges["held"]
        if into != out + dropped + held:
            return Verdict(
                VIOLATED, f"{process.id}: {into} primary frames in, {out} released + {dropped} dropped + {held} held"
            )
        into = counters["frames_secondary"] + counters["secondary_split"] + counters["secondary_taken_over"]
        dropped = summed(counters, "secondary_dropped.") + counters["secondary_handed_over"]
        held = gauges["held_secondary"]
        if into != dropped + held:
            return Verdict(VIOLATED, f"{process.id}: {into} secondary frames in, {dropped} done with + {held} held")
    for given, taken in (("handed_over", "taken_over"), ("secondary_handed_over", "secondary_taken_over")):
        out, into = (sum(process.counters[name] for process in compares) for name in (given, taken))
        if out != into and facts.settled:
            return Verdict(VIOLATED, f"{out} frames were {given}, {into} {taken}")
    if not facts.settled:
        return Verdict(UNKNOWN, "compare adds up; frames were still under way, so links cannot")
    return _links_add_up(facts)


def _links_add_up(facts: Facts) -> Verdict:
    known = {process.id: process for process in facts.processes}
    # By the name of a link, the frames at its ends. Several processes may share the other end of a port.
    given: defaultdict[str, dict[End, int]] = defaultdict(dict)
    taken: defaultdict[str, dict[End, int]] = defaultdict(dict)
    # In the symmetric wiring both hosts have as many.
    workers = max(Counter(process.host for process in facts.of("compare")).values())
    for link in links(facts.wiring, workers):
        if link.scheme == "tap" or link.name in ("control", "peer"):
            continue
        for end, frames, ends in ((link.source, _given, given), (link.target, _taken, taken)):
            if end.process not in known:
                return Verdict(UNKNOWN, f"{link.name}: an end of it is unknown")
            if incomplete := _incomplete([known[end.process]]):
                return Verdict(UNKNOWN, incomplete)
            ends[link.name][end] = frames(known[end.process].counters, f"link.{end.port.replace('-', '_')}.")
    for name in given:
        out, into = sum(given[name].values()), sum(taken[name].values())
        if out != into:
            return Verdict(VIOLATED, f"link {name}: {out} frames given, {into} taken or known to be lost")
    return Verdict(HELD, "every compare and every link adds up")


def _given(counters: Counter[str], port: str) -> int:
    return counters[port + "frames_out"] - summed(counters, port + "dropped.")


def _taken(counters: Counter[str], port: str) -> int:
    return counters[port + "frames_in"] + counters[port + "lost"] + counters[port + "gap_frames"]


def _l1(facts: Facts) -> Verdict:
    for process in facts.of("compare"):
        oldest = process.gauges["held_oldest_ms"]
        if oldest > process.detail.get("asks_after_ms", HELD_AT_MOST_MS) and not facts.wanted():
            return Verdict(VIOLATED, f"{process.id} holds a frame for {oldest} ms and asks for no checkpoint")
    return Verdict(HELD, "no frame is held for longer than its compare waits without a checkpoint wanted")


def _e2(facts: Facts) -> Verdict:
    if not facts.same_guests:
        return Verdict(UNKNOWN, "the guests ran different commands")
    if any(not process.complete for process in facts.processes if process.role != "client"):
        return Verdict(UNKNOWN, "a process was killed or restarted")
    if requests := facts.wanted():
        return Verdict(VIOLATED, f"{requests} checkpoints wanted though both guests ran the same command")
    return Verdict(HELD, "no checkpoint wanted")


_RULES: Final = {
    "S1": (_s1, ("compare",)),
    "S2": (_s2, ()),
    "S3": (_s3, ()),
    "S4": (_s4, ("mirror", "rewriter")),
    "S5": (_s5, ()),
    "S6": (_s6, ("compare",)),
    "L1": (_l1, ("compare",)),
    "E2": (_e2, ("compare",)),
}
"""How each invariant is judged, and the roles whose counters must be complete for that."""
