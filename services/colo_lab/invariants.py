"""The invariants (ARCHITECTURE.md names them), judged from what the processes have counted. Pure.

`held`: the counters show that the invariant holds. `violated`: they contradict it. `unknown`: they cannot tell, because
a process was killed and its counts are lost, because a mode suspends the rule, or because nobody looked.

====  ====================================================================================
S1    every frame that compare released has a cause, and with one compare mode `enforce`
      and no flow unprotected the causes are only: compared, pass, malformed, checkpoint
S4    no gap on the mirror link was left open: frames missed by the secondary are zero, or a
      checkpoint was wanted
S3    in every connection that went on after a failover, as captured on the client LAN, the byte came that
      the client expected next, and the ACK did not go back
S5    nobody but the primary side wrote to the client LAN; with a capture there: the guest was heard from
      one host's port, then from the other's, and never again from the first
S6    compare: frames in + taken over = released - synthesized + dropped + held + handed over, on both sides
      (a secondary frame cut in pieces counts `secondary_split`); and every ZeroMQ link of frames:
      given to it = taken from it + dropped by it with a reason + found missing by its receiver
L1    the oldest held frame is younger than compare_timeout + one scan, or a checkpoint is wanted
E2    both guests ran the same command, and no checkpoint was wanted
====  ====================================================================================

S2 is about the bytes that the client gets. Only who checks these bytes (a test, the demo) can tell whether it holds.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from colo_lab.observed import Process, gaps, summed
from colo_proto.messages import Mode
from colo_proto.topology import Wiring, links

HELD, VIOLATED, UNKNOWN = "held", "violated", "unknown"
HELD_AT_MOST_MS: Final = 3000 + 1000
"""Milliseconds after which compare must have asked for a checkpoint, where it does not say itself (`asks_after_ms`):
its default timeout, and one scan for ages.
"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`held`, `violated` or `unknown`, and why."""

    verdict: str
    why: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What there is to judge by."""

    mode: str
    same_guests: bool
    settled: bool
    """The counters had come to rest. While frames are under way, sums over several processes cannot agree."""
    processes: Sequence[Process]
    wiring: Wiring = "faithful"
    lan: dict[str, Any] | None = None
    """What the capture on the client LAN has seen (`colo_lab.lanwatch`)."""

    def of(self, role: str) -> list[Process]:
        """The processes of a role."""
        return [process for process in self.processes if process.role == role]


def judge(facts: Facts) -> dict[str, Verdict]:
    """Judge all invariants."""
    return {
        "S1": _s1(facts),
        "S2": Verdict(UNKNOWN, "the client's bytes were not looked at"),
        "S3": _s3(facts),
        "S4": _s4(facts),
        "S5": _s5(facts),
        "S6": _s6(facts),
        "L1": _l1(facts),
        "E2": _e2(facts),
    }


def _sum_of(counters: dict[str, int], *names: str) -> int:
    return sum(counters.get(name, 0) for name in names)


def _complete(processes: Sequence[Process]) -> str:
    """Empty when the counters of all of them can be believed; otherwise the reason why not."""
    if not processes:
        return "there is no such process"
    for process in processes:
        if process.status is None:
            return f"{process.id} was never heard of"
        if not process.complete:
            return f"{process.id} was restarted or killed and took its last counts along"
    return ""


def _s1(facts: Facts) -> Verdict:
    compares = facts.of("compare")
    if gap := _complete(compares):
        return Verdict(UNKNOWN, gap)
    if facts.mode != Mode.ENFORCE:
        return Verdict(UNKNOWN, f"mode {facts.mode} releases without comparing")
    causes: Counter[str] = Counter()
    released = 0
    for process in compares:
        assert process.status is not None
        counters = process.status.counters
        released += counters.get("released", 0)
        causes.update({k.removeprefix("released."): n for k, n in counters.items() if k.startswith("released.")})
    if released != sum(causes.values()):
        return Verdict(VIOLATED, f"{released} frames released, {sum(causes.values())} with a cause")
    if min(causes.values(), default=0) < 0:
        return Verdict(VIOLATED, "more frames have a cause than were released")
    free = {cause: n for cause, n in causes.items() if n and cause in ("mode", "unprotected")}
    if free.get("mode"):
        return Verdict(UNKNOWN, f"the mode let {free['mode']} frames pass")
    text = ", ".join(f"{n} {cause}" for cause, n in sorted(causes.items()) if n)
    return Verdict(HELD, f"every released frame has a cause: {text or 'none was released'}")


def _s4(facts: Facts) -> Verdict:
    mirrors, rewriters = facts.of("mirror"), facts.of("rewriter")
    if gap := _complete(mirrors) or _complete(rewriters):
        return Verdict(UNKNOWN, gap)
    missed = gaps(facts.processes)
    wanted = _wanted(facts)
    if missed:
        held = wanted > 0
        return Verdict(HELD if held else VIOLATED, f"{missed} mirrored frames missed, {wanted} checkpoints wanted")
    # Where mirrored frames leave a process: the mirror's copies, f1's way on, the rewriter's way to the guest.
    ways = {"m0": "link.outdev.dropped", "f1": "link.netdev.dropped", "rew0": "link.netdev.dropped"}
    dropped = sum(
        process.status.counters.get(ways[process.id], 0)
        for process in facts.processes
        if process.status and process.id in ways
    )
    if dropped and not wanted:
        return Verdict(VIOLATED, f"{dropped} mirrored frames dropped, no checkpoint wanted")
    return Verdict(HELD, "no gap on the mirror link")


def _s3(facts: Facts) -> Verdict:
    lan = facts.lan
    if lan is None or not lan["frames"].get("lan-s"):
        return Verdict(UNKNOWN, "no failover was looked at")
    if lan["lost"]:
        # A frame that the capture has missed looks like a frame that never came.
        return Verdict(UNKNOWN, f"the capture on the LAN missed {lan['lost']} frames")
    if lan["broken"]:
        return Verdict(VIOLATED, "; ".join(lan["broken"]))
    return Verdict(HELD, f"{lan['continued']} connections went on where they were")


def _s5(facts: Facts) -> Verdict:
    if facts.lan is not None:
        late, text = facts.lan["late"], ", ".join(f"{n} from {port}" for port, n in sorted(facts.lan["frames"].items()))
        if late:
            return Verdict(VIOLATED, f"captured on the LAN: {late} frames from a port that had been left ({text})")
        if facts.lan["lost"]:
            return Verdict(UNKNOWN, f"the capture on the LAN missed {facts.lan['lost']} frames")
        return Verdict(HELD, f"captured on the LAN, one port after the other: {text or 'nothing'}")
    writers = {process.host for process in facts.processes if process.status and _writes_lan(process)}
    if writers - {"host-p"}:
        return Verdict(VIOLATED, f"written to by {', '.join(sorted(writers))}")
    return Verdict(HELD, "only the primary side has the client tap open for writing")


def _writes_lan(process: Process) -> bool:
    """True when it has written frames of the guest to the client LAN. A claim of the frame does not count as one."""
    assert process.status is not None
    counters = process.status.counters
    written = sum(n for name, n in counters.items() if name.startswith("tap.lan") and name.endswith(".written"))
    return process.host != "host-p" and written > counters.get("link.claims.written", 0)


def _s6(facts: Facts) -> Verdict:
    compares = facts.of("compare")
    if gap := _complete(compares):
        return Verdict(UNKNOWN, gap)
    for process in compares:
        assert process.status is not None
        counters, gauges = process.status.counters, process.status.gauges
        into = counters.get("frames_primary", 0) + counters.get("taken_over", 0)
        out = counters.get("released", 0) - counters.get("synthesized", 0) + counters.get("handed_over", 0)
        dropped, held = summed(counters, "dropped."), gauges.get("held", 0)
        if into != out + dropped + held:
            return Verdict(
                VIOLATED, f"{process.id}: {into} primary frames in, {out} released + {dropped} dropped + {held} held"
            )
        into = _sum_of(counters, "frames_secondary", "secondary_split", "secondary_taken_over")
        dropped = summed(counters, "secondary_dropped.") + counters.get("secondary_handed_over", 0)
        held = gauges.get("held_secondary", 0)
        if into != dropped + held:
            return Verdict(VIOLATED, f"{process.id}: {into} secondary frames in, {dropped} done with + {held} held")
    for given, taken in (("handed_over", "taken_over"), ("secondary_handed_over", "secondary_taken_over")):
        out, into = (sum(p.status.counters.get(n, 0) for p in compares if p.status) for n in (given, taken))
        if out != into and facts.settled:
            return Verdict(VIOLATED, f"{out} frames were {given}, {into} {taken}")
    if not facts.settled:
        return Verdict(UNKNOWN, "compare adds up; frames were still under way, so links cannot")
    return _links_add_up(facts)


def _links_add_up(facts: Facts) -> Verdict:
    by_id = {process.id: process for process in facts.processes}
    given: dict[str, int] = {}
    taken: Counter[str] = Counter()
    for link in links(facts.wiring, len(facts.of("compare"))):
        if link.scheme == "tap" or link.name in ("control", "peer"):
            continue
        source, target = by_id.get(link.source.process), by_id.get(link.target.process)
        if gap := _complete([one for one in (source, target) if one is not None]):
            return Verdict(UNKNOWN, gap)
        if source is None or target is None or source.status is None or target.status is None:
            return Verdict(UNKNOWN, f"{link.name}: an end of it is unknown")
        # Where one end of a link is bound, several processes at the other end share it.
        key = link.name
        out = f"link.{link.source.port.replace('-', '_')}."
        into = f"link.{link.target.port.replace('-', '_')}."
        mine = source.status.counters.get(out + "frames_out", 0) - summed(source.status.counters, out + "dropped.")
        if link.bound == "source":
            given[key] = mine
            taken[key] += _taken(target.status.counters, into)
        else:
            given[key] = given.get(key, 0) + mine
            taken[key] = _taken(target.status.counters, into)
    for key, count in given.items():
        if count != taken[key]:
            return Verdict(VIOLATED, f"link {key}: {count} frames given, {taken[key]} taken or known to be lost")
    return Verdict(HELD, "every compare and every link adds up")


def _taken(counters: dict[str, int], port: str) -> int:
    return counters.get(port + "frames_in", 0) + counters.get(port + "lost", 0) + counters.get(port + "gap_frames", 0)


def _l1(facts: Facts) -> Verdict:
    compares = facts.of("compare")
    if gap := _complete(compares):
        return Verdict(UNKNOWN, gap)
    for process in compares:
        assert process.status is not None
        oldest = process.status.gauges.get("held_oldest_ms", 0)
        if oldest > process.status.detail.get("asks_after_ms", HELD_AT_MOST_MS) and not _wanted(facts):
            return Verdict(VIOLATED, f"{process.id} holds a frame for {oldest} ms and asks for nothing")
    return Verdict(HELD, "no frame is held for longer than its compare waits without a checkpoint wanted")


def _e2(facts: Facts) -> Verdict:
    if not facts.same_guests:
        return Verdict(UNKNOWN, "the guests ran different commands")
    if gap := _complete(facts.of("compare")):
        return Verdict(UNKNOWN, gap)
    if any(not process.complete for process in facts.processes if process.role != "client"):
        return Verdict(UNKNOWN, "a process was killed or restarted")
    wanted = _wanted(facts)
    if wanted:
        return Verdict(VIOLATED, f"{wanted} checkpoints wanted though both guests ran the same command")
    return Verdict(HELD, "no checkpoint wanted")


def _wanted(facts: Facts) -> int:
    """How many checkpoints anybody wanted. The frame counts those of compare once more, so the sums are not added."""
    own = [summed(p.status.counters, "checkpoints_wanted.") for p in facts.of("compare") if p.status]
    heard = [
        summed(p.status.counters, "checkpoints_wanted.") for p in facts.of("frame") if p.status and p.host == "host-p"
    ]
    return max(sum(own), sum(heard))
