"""Which request to the store is due, and what the COLO frame is told about the answer. Pure: no I/O, no clock.

::

    the frame wants the key      --> HOLD at once, then each fifth of its time to live; until we have it, each twentieth
    it does not want it any more --> RELEASE
    otherwise                    --> LOOK, each fifth: people see who has it, and that the store is in reach

One request is under way at a time. Each answer becomes a `Voted` for the frame. When the frame is silent for longer
than it has said, the key is not renewed any more. It is never given up without the frame's word, also not when this
process ends: the frame may count on it until its time to live is over.
"""

from collections import Counter
from typing import Any, Final

from colo_proto.core import Log, Output, Tell
from colo_proto.messages import Message, Voted, VoteWanted
from colo_vote.config import VoteConfig
from colo_vote.store import Holder

HOLD: Final = "hold"
RELEASE: Final = "release"
LOOK: Final = "look"
RENEW: Final = 0.2
"""Part of the time to live after which the key is renewed."""
RETRY: Final = 0.05
"""Part of it after which we try again to get the key."""


class Vote:
    """See the module. Times are monotonic seconds."""

    def __init__(self, config: VoteConfig, side: str = "") -> None:
        self.config = config
        self.counters: Counter[str] = Counter()
        self.wish: VoteWanted | None = None
        """What the frame has said last."""
        self.holder: Holder | None = None
        """Who had the key when the store was last asked."""
        self.error = "the store was not asked yet"
        """Why the store did not answer; empty when it did."""
        self.busy = ""
        """The request that is under way."""
        self._asked = 0.0
        self._due = 0.0
        self._changed = False
        """The wish has changed since the last request."""
        self._ours = False
        """We have asked for the key since it was last given up, so the store may keep it for us."""

    @property
    def name(self) -> str:
        """What the key holds while we have it."""
        return f"{self.wish.side if self.wish else ''} {self.config.holder}"

    def wants(self, now: float) -> bool:
        """True while the frame wants the key."""
        return self.wish is not None and self.wish.want and now < self.wish.until

    def tell(self, message: Message, now: float) -> list[Output]:
        """A message of the frame; only `VoteWanted` matters here."""
        if isinstance(message, VoteWanted) and message.side in ("primary", "secondary"):
            before, self.wish = self.wish, message
            if before is None or _what(before) != _what(message):
                self._due, self._changed = now, True
        return []

    def deadline(self) -> float:
        """When to call `next`."""
        return float("inf") if self.busy else self._due

    def next(self, now: float) -> str:
        """The request that is due now, which is then under way; empty when none is."""
        if self.busy or now < self._due:
            return ""
        if self.wants(now):
            self.busy, self._ours = HOLD, True
        elif self.wish is not None and not self.wish.want and self._ours:
            self.busy = RELEASE
        else:
            self.busy = LOOK
        self._asked, self._changed = now, False
        self.counters["requests." + self.busy] += 1
        return self.busy

    @property
    def alone(self) -> str:
        """What `HOLD` does to the note that the holder goes on alone."""
        return self.wish.alone if self.wish is not None and self.wish.alone in ("yes", "no") else ""

    def answered(self, holder: Holder | None, now: float) -> list[Output]:
        """The store has answered the request that was under way."""
        request, self.busy = self.busy, ""
        out: list[Output] = []
        if self.error:
            out.append(Log("info", "store.found", {"store": self.config.store}))
        before, noted = (self.holder.name, self.holder.alone) if self.holder is not None else ("", "")
        self.error, self.holder = "", holder
        ours = holder is not None and holder.ttl > 0
        if request == RELEASE:
            self._ours = False
            holder = self.holder = Holder("", 0, alone=noted)
        if (holder.name if holder is not None else "") != before:
            text = {"holder": holder.name if holder else "", "token": holder.token if holder else 0, "ours": ours}
            out.append(Log("info", "key.changed", text))
        waits = self.wants(now) and not ours
        self._due = self._asked + self.config.ttl * (RETRY if waits else RENEW)
        if self._changed:
            self._due = now
        return [*out, *self._say(ours=ours and self.wants(now))]

    def failed(self, error: str, now: float) -> list[Output]:
        """The store did not answer the request that was under way."""
        self.busy = ""
        self.counters["store_errors"] += 1
        out: list[Output] = []
        if not self.error or self.error.startswith("the store was not"):
            out.append(Log("warning", "store.lost", {"store": self.config.store, "error": error}))
        self.error = error
        self._due = now if self._changed else now + self.config.ttl * RETRY
        return [*out, *self._say(ours=False)]

    def _say(self, *, ours: bool) -> list[Output]:
        """Tell the frame what the store has said. Nobody is told before it has said what it wants."""
        wish, holder = self.wish, self.holder
        if wish is None:
            return []
        alone = holder.alone if holder is not None else ""
        ttl = float(self.config.ttl)
        token, name = (holder.token, holder.name) if holder is not None else (0, "")
        if ours and holder is not None:
            ttl = min(ttl, holder.ttl)
        voted = Voted(wish.incarnation, wish.count, ours, self._asked, ttl, token, name, self.error, alone)
        return [Tell(voted)]

    def gauges(self, now: float) -> dict[str, int]:
        """Levels for metrics."""
        ours = self.holder is not None and self.holder.ttl > 0
        return {"store_up": int(not self.error), "held": int(ours), "wanted": int(self.wants(now))}

    def status(self, now: float) -> dict[str, Any]:
        """What `colo status` shows of it."""
        return {
            "store": self.config.store,
            "key": self.config.key,
            "wanted": self.wants(now),
            "holder": self.holder.name if self.holder is not None else "",
            "token": self.holder.token if self.holder is not None else 0,
            "alone": self.holder.alone if self.holder is not None else "",
            "error": self.error,
        }


def _what(wish: VoteWanted) -> tuple[int, int, str]:
    return wish.incarnation, wish.count, wish.alone
