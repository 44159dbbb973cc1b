"""Tells whether what was heard of the other side is news, or could have been recorded and repeated by somebody. Pure.

A claim's seal proves that the other side has said this at some time, but not when. A nonce proves when: our own
`incarnation` is random, and each of our words has a number, so nobody can repeat one of them before we have said it. ::

    we say word 17 --------------------------> the other side hears it
    it is at most as old as our word 17 <----- claim that repeats "17 of this incarnation" (`echo`, or among `answers`)

* **A start of the other side** (its incarnation) is believed from its first claim that repeats a word which we have
  said within `patience`. From then on the one that was believed before is retired and never believed again.
* **Within an incarnation** counts grow: a claim whose count was heard already, or is lower than that, is no news.
* **How old it can be at most** follows from the newest word of ours that it repeats. The difference between the two
  clocks follows from that, too, so the age of a later claim that repeats nothing new (the other side does not hear us
  at the moment) is known as well, within what two clocks can drift apart. What may be older than `patience` is not
  believed.

What is not believed has one effect only: we repeat its number as an answer, so that whoever has said it just now can
prove that. A recording is answered as well, but that answer helps nobody.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from colo_proto.claim import MAX_ANSWERS, Stand

REMEMBERED: Final = 256
"""For so many of our own words we remember when they were said."""
RETIRED: Final = 64
"""So many incarnations that were believed once are remembered. When one is forgotten, all that it has said has long
been too old to be believed.
"""
STRANGERS: Final = 64
"""So many incarnations that have proved nothing are remembered. The one that was answered most often makes room."""
DRIFT: Final = 1e-3
"""By so many seconds in each second two monotonic clocks may drift apart (NTP slews each by at most half of that)."""

NEWS: Final = "news"
KNOWN: Final = "known"
UNPROVEN: Final = "unproven"


@dataclass(slots=True)
class _Stranger:
    count: int
    heard: float
    answered: int = 0


class Freshness:
    """See the module. `patience` is in seconds, and shorter than the silence after which anybody acts."""

    def __init__(self, incarnation: int, patience: float, now: float) -> None:
        self.incarnation = incarnation
        self.patience = patience
        self.believed = 0
        """The incarnation of the other side that has proved itself; 0 when none has."""
        self._count = -1
        """The number of its newest word that was believed."""
        self._started = now
        self._words: OrderedDict[int, float] = OrderedDict()
        self._zero = float("-inf")
        """By our clock, the believed incarnation's clock showed 0 at this time or later."""
        self._zero_at = now
        """When `_zero` was found out."""
        self._retired: OrderedDict[int, None] = OrderedDict()
        self._strangers: dict[int, _Stranger] = {}

    # -- what we say -------------------------------------------------------------------------------------

    def said(self, count: int, now: float) -> None:
        """Our word number `count` is said now."""
        self._words[count] = now
        if len(self._words) > REMEMBERED:
            self._words.popitem(last=False)

    def when(self, count: int) -> float | None:
        """When that was said; None when it was never said, or so long ago that it was forgotten."""
        return self._words.get(count)

    def clock(self, now: float) -> int:
        """Our own clock for `Stand.sent_ms`."""
        return max(0, int((now - self._started) * 1000))

    def answers(self, now: float) -> tuple[tuple[int, int], ...]:
        """The numbers to repeat for those who have proved nothing. Who had the fewest answers, and was heard last, goes
        first.
        """
        for name in [name for name, one in self._strangers.items() if now > one.heard + self.patience]:
            del self._strangers[name]
        chosen = sorted(self._strangers.items(), key=lambda item: (item[1].answered, -item[1].heard))[:MAX_ANSWERS]
        for _, one in chosen:
            one.answered += 1
        return tuple((name, one.count) for name, one in chosen)

    # -- what we hear ------------------------------------------------------------------------------------

    def judge(self, stand: Stand, now: float) -> str:
        """`NEWS` is to be believed, `KNOWN` was said before, and nobody knows how old `UNPROVEN` is."""
        name, sent = stand.incarnation, stand.sent_ms / 1000
        if name in self._retired or (name == self.believed and stand.count <= self._count):
            return KNOWN
        proof = self._proof(stand)
        after = proof
        if name == self.believed:
            zero = self._zero - DRIFT * (now - self._zero_at)
            after = max(proof, zero + sent)
            self._zero, self._zero_at = max(zero, proof - sent), now
        if now - after > self.patience:
            return self._unproven(stand, now)
        if name != self.believed:
            self._introduce(name)
            self._zero, self._zero_at = proof - sent, now
        self._count = stand.count
        self._strangers.pop(name, None)
        return NEWS

    def _proof(self, stand: Stand) -> float:
        """A time after which it was said, because it repeats what we said at that time."""
        repeated = [(stand.echo_of, stand.echo), *stand.answers]
        times = [self._words.get(count) for name, count in repeated if name == self.incarnation]
        return max((when for when in times if when is not None), default=float("-inf"))

    def _introduce(self, name: int) -> None:
        if self.believed:
            self._retired[self.believed] = None
            if len(self._retired) > RETIRED:
                self._retired.popitem(last=False)
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
