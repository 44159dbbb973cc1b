"""Which faults happen, where, when, and for how long. Everything follows from a seed. Pure.

==========  ==================  =================================================================================
kind        targets             what happens
==========  ==================  =================================================================================
kill        every process       SIGKILL; its supervisor starts it again
pause       every process       SIGSTOP for a while, then SIGCONT
cut         the hosts' cable    down for a while
block       a port between      what goes to it from the other host is dropped for a while
            the hosts
down        every tap           `lan-p`, `lan-s`: its kernel side is down for a while; `guest-p`, `guest-s`: the
                                guest's interface has no carrier, as with a cable that is pulled
unlink      every socket file   deleted, as by a cleanup of temporary files; open connections stay
==========  ==================  =================================================================================

Two faults happen together, so that one meets what the other has broken.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

KINDS = ("kill", "pause", "cut", "block", "down", "unlink")
TAPS = ("lan-p", "lan-s", "guest-p", "guest-s")
APART = 0.6
"""Seconds at most between the two faults."""
LAST = (0.2, 3.0)
"""Seconds that a fault lasts; silence between the hosts counts as death after 2.5 s."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: it begins `delay` seconds after its pair begins, and lasts `seconds` (0: no duration)."""

    kind: str
    target: str
    delay: float
    seconds: float

    def __str__(self) -> str:
        last = f" for {self.seconds:.1f} s" if self.seconds else ""
        return f"{self.kind} {self.target}{last} at {self.delay:.1f} s"


def plan(
    seed: int, pairs: int, processes: Sequence[str], ports: Sequence[str], sockets: Sequence[str]
) -> list[tuple[Fault, Fault]]:
    """`pairs` pairs of faults. All targets are chosen about equally often."""
    chance = random.Random(seed)
    every = [
        *(("kill", one) for one in processes),
        *(("pause", one) for one in processes),
        ("cut", "repl"),
        *(("block", one) for one in ports),
        *(("down", one) for one in TAPS),
        *(("unlink", one) for one in sockets),
    ]
    drawn: list[tuple[str, str]] = []
    while len(drawn) < 2 * pairs:
        drawn += chance.sample(every, len(every))
    found = []
    for at in range(0, 2 * pairs, 2):
        first, second = (_fault(chance, *one, late=late) for late, one in enumerate(drawn[at : at + 2]))
        found.append((first, second))
    return found


def _fault(chance: random.Random, kind: str, target: str, *, late: int) -> Fault:
    seconds = 0.0 if kind in ("kill", "unlink") else round(chance.uniform(*LAST), 1)
    return Fault(kind, target, round(chance.uniform(0, APART) * late, 1), seconds)
