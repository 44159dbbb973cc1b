"""Tells whether a claim of the other side is new, or may be a recording that somebody repeats. Pure.

A claim's seal proves that the other side has made it at some time, but not when. A nonce proves when: our own
`incarnation` is random, and each of our claims has a number, so nobody can repeat one of them before we have made it::

    we make claim 17 ------------------------> the other side hears it
    it is at most as old as our claim 17 <---- a claim that repeats "17 of this incarnation" (`echo`, or in `answers`)

* **A start of the other side** (its incarnation) is believed from its first claim that repeats one which we made within
  the last `max_age` seconds. From then on the start that was believed before is retired, and never believed again.
* **Within an incarnation** counts grow: a claim whose count is not higher than all that were heard is no news.
* **How old a claim can be at most** follows from the newest claim of ours that it repeats. From that follows the
  difference between the two clocks, too. So the age of a later claim that repeats nothing new (because the other side
  does not hear us at the moment) is known as well, but for what two clocks can drift apart. A claim that may be older
  than `max_age` is not believed.

A claim that is not believed has one effect only: we repeat its number as an answer, so that a speaker who has made it
just now can prove that. A recording is answered as well, but that answer is of no use to anybody.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Final

from colo_proto.claim import MAX_ANSWERS, Stand

REMEMBERED: Final = 256
"""For this many of our own claims we remember when they were made."""
RETIRED: Final = 64
"""This many incarnations that were believed once are remembered. When one is forgotten, all its claims have long been
too old to be believed.
"""
STRANGERS: Final = 64
"""This many incarnations that have proved nothing are remembered. The one that was answered most often makes room."""
DRIFT: Final = 1e-3
"""By this many seconds in each second two monotonic clocks may drift apart (NTP slews each by at most half of that)."""

NEWS: Final = "news"
KNOWN: Final = "known"
UNPROVEN: Final = "unproven"


@dataclass(slots=True)
class _Stranger:
    count: int
    heard: float
    answered: int = 0


class Freshness:
    """See the module. `max_age` is in seconds, and shorter than the silence after which a side acts."""

    def __init__(self, incarnation: int, max_age: float, now: float) -> None:
        self.incarnation = incarnation
        self.max_age = max_age
        self.believed = 0
        """The incarnation of the other side that has proved itself; 0 when none has."""
        self._count = -1
        """The number of its newest claim that was believed."""
        self._started = now
        self._made: OrderedDict[int, float] = OrderedDict()
        """When each of our claims was made."""
        self._zero = float("-inf")
        """By our clock, the believed incarnation's clock showed 0 at this time or later."""
        self._zero_at = now
        """When `_zero` was found out."""
        self._retired: deque[int] = deque(maxlen=RETIRED)
        self._strangers: dict[int, _Stranger] = {}

    # -- what we say -------------------------------------------------------------------------------------

    def said(self, count: int, now: float) -> None:
        """Our claim number `count` is made now."""
        self._made[count] = now
        if len(self._made) > REMEMBERED:
            self._made.popitem(last=False)

    def when(self, count: int) -> float | None:
        """When that claim was made; None when it never was, or so long ago that it was forgotten."""
        return self._made.get(count)

    def clock(self, now: float) -> int:
        """Our own clock for `Stand.sent_ms`."""
        return max(0, int((now - self._started) * 1000))

    def answers(self, now: float) -> tuple[tuple[int, int], ...]:
        """The numbers to repeat for those who have proved nothing. The one that had the fewest answers, and among those
        the one that was heard last, comes first.
        """
        self._strangers = {name: one for name, one in self._strangers.items() if now <= one.heard + self.max_age}
        chosen = sorted(self._strangers.items(), key=lambda item: (item[1].answered, -item[1].heard))[:MAX_ANSWERS]
        for _, one in chosen:
            one.answered += 1
        return tuple((name, one.count) for name, one in chosen)

    # -- what we hear ------------------------------------------------------------------------------------

    def judge(self, stand: Stand, now: float) -> str:
        """`NEWS` is to be believed, `KNOWN` was heard before, and `UNPROVEN` may be of any age."""
        name, sent = stand.incarnation, stand.sent_ms / 1000
        if name in self._retired or (name == self.believed and stand.count <= self._count):
            return KNOWN
        proof = self._proof(stand)
        after = proof
        if name == self.believed:
            zero = self._zero - DRIFT * (now - self._zero_at)
            after = max(proof, zero + sent)
            self._zero, self._zero_at = max(zero, proof - sent), now
        if now - after > self.max_age:
            return self._unproven(stand, now)
        if name != self.believed:
            self._believe(name)
            self._zero, self._zero_at = proof - sent, now
        self._count = stand.count
        self._strangers.pop(name, None)
        return NEWS

    def _proof(self, stand: Stand) -> float:
        """A time after which the claim was made, because it repeats a claim that we made at that time."""
        repeated = [(stand.echo_of, stand.echo), *stand.answers]
        times = [self._made.get(count, float("-inf")) for name, count in repeated if name == self.incarnation]
        return max(times, default=float("-inf"))

    def _believe(self, name: int) -> None:
        if self.believed:
            self._retired.append(self.believed)
        self.believed = name

    def _unproven(self, stand: Stand, now: float) -> str:
        one = self._strangers.get(stand.incarnation)
        if one is None:
            if len(self._strangers) >= STRANGERS:
                del self._strangers[max(self._strangers, key=lambda name: self._strangers[name].answered)]
            self._strangers[stand.incarnation] = _Stranger(stand.count, now)
        elif stand.count > one.count:
            one.count, one.heard = stand.count, now
        else:
            return KNOWN
        return UNPROVEN
