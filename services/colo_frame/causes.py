"""Who asks for checkpoints again and again, and how long the next one of each has to wait.

A wish has two causes: the *service* of the guest that differs (its protocol and the guest's port), and the *client*
(its address). It waits as long as the cause with the longer delay. Each checkpoint that answers a cause doubles its
delay::

    checkpoint   1     2         3                 4                                   5
                 |-----|---------|-----------------|-----------------------------------|---
    delay         FIRST  twice     four times        eight times, and so on up to `longest`

and each time `longest` seconds have passed, the delay is halved. So a cause may ask a few times in a row, but in the
long run only once in `longest` seconds. Services and clients are remembered apart from each other, because a client can
make up any number of addresses: the service stays known all the same.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from colo_proto.messages import CheckpointWanted, Reason

FIRST: Final = 1.0
"""Seconds from a cause's first checkpoint to its second."""

REMEMBERED: Final = 256
"""So many services are remembered, and as many clients. The one that was answered longest ago is forgotten."""

NAMED: Final = 64
"""So many services have a counter of their own. Later ones share one, because counters are never removed."""

SHOWN: Final = 16
"""At most so many causes are shown in `colo status`."""

REPEATED: Final = 3
"""Checkpoints in a row from which on a cause counts as repeated."""

LENGTH: Final = 60
FLOW: Final = 200
"""Longest name of a cause, and longest flow that is shown with it. Both are bounded, for another process says them."""

OWN: Final = frozenset({Reason.MIRROR_GAP, Reason.WORKER_LOST, Reason.RESCALE, Reason.RESYNC, Reason.REQUEST})
"""Reasons that lie in the pair itself, so that no flow has caused them."""


class Named(NamedTuple):
    """The causes of one wish. A name is empty where the wish has no cause of that kind."""

    service: str
    client: str


class Cause:
    """A service or a client whose flows were answered by checkpoints."""

    __slots__ = ("at", "checkpoints", "flow", "level", "noted", "reason")

    def __init__(self, now: float) -> None:
        self.level = 0
        """Checkpoints in a row, less what time has taken away since."""
        self.at = now
        """When it was answered last."""
        self.checkpoints = 0
        self.noted = False
        """It was already counted and logged that the next checkpoint of this cause is put off."""
        self.reason = ""
        self.flow = ""
        """Reason and flow of the last wish that this cause had."""


def name(wish: CheckpointWanted) -> Named:
    """What a wish is caused by."""
    if wish.reason in OWN:
        return Named("", "")
    words = wish.flow[:FLOW].partition(" about ")[0].split(" ")
    while len(words) > 2 and words[0] == "vlan":
        del words[:2]
    if len(words) != 4 or words[2] != ">":
        return Named(f"unknown ({wish.reason})"[:LENGTH], "")
    _, port = _end(words[1])
    client, _ = _end(words[3])
    return Named((f"{words[0]} port {port}" if port else words[0])[:LENGTH], client[:LENGTH])


def _end(text: str) -> tuple[str, str]:
    """Address and port of `10.0.0.2:80`, `[fd00::2]:80`, `10.0.0.2` or `fd00::2`."""
    if text.startswith("["):
        address, _, port = text[1:].partition("]:")
        return address, port
    if text.count(":") == 1:
        address, _, port = text.partition(":")
        return address, port
    return text, ""


class Causes:
    """The causes that are remembered. `longest` is the longest delay in seconds; with 0 nobody waits."""

    def __init__(self, longest: float) -> None:
        self.longest = longest
        self._services: OrderedDict[str, Cause] = OrderedDict()
        self._clients: OrderedDict[str, Cause] = OrderedDict()
        self._named: set[str] = set()
        self._top = next(level for level in range(1, 64) if FIRST * 2.0 ** (level - 1) >= longest)
        """The level at which the delay is `longest`. Levels do not rise above it, or it would take long to come down
        again.
        """

    def due(self, named: Named) -> float:
        """When the next checkpoint of these causes may begin; 0 when they have had none."""
        found = [self._services.get(named.service), self._clients.get(named.client)]
        return max((cause.at + self._delay(cause) for cause in found if cause is not None), default=0.0)

    def put_off(self, named: Named, wish: CheckpointWanted, now: float) -> tuple[str, float] | None:
        """A wish of these causes has to wait: the cause that makes it wait, and for how long. None if that was said
        before.
        """
        found: list[tuple[float, str, Cause]] = []
        for table, key in ((self._services, named.service), (self._clients, named.client)):
            cause = table.get(key)
            if cause is not None:
                cause.reason, cause.flow = wish.reason[:LENGTH], wish.flow[:FLOW]
                found.append((cause.at + self._delay(cause), key, cause))
        due, key, cause = max(found, key=lambda one: one[0])
        if due <= now or cause.noted:
            return None
        cause.noted = True
        return key, due - cause.at

    def counter(self, key: str) -> str:
        """The name under which a cause that is put off is counted: never a client's address."""
        if key not in self._services:
            return "client"
        if key not in self._named and len(self._named) >= NAMED:
            return "other"
        self._named.add(key)
        return key

    def answered(self, many: Iterable[Named], now: float) -> None:
        """A checkpoint has answered all these. It counts once for each cause, however many wishes had that cause."""
        many = list(many)
        for table, keys in (
            (self._services, {named.service for named in many}),
            (self._clients, {named.client for named in many}),
        ):
            for key in sorted(keys - {""}):
                self._raise(table, key, now)

    def _raise(self, table: OrderedDict[str, Cause], key: str, now: float) -> None:
        cause = table.get(key)
        if cause is None:
            if len(table) >= REMEMBERED:
                table.popitem(last=False)
            cause = table[key] = Cause(now)
        table.move_to_end(key)
        cause.level = min(self._level(cause, now) + 1, self._top)
        cause.at = now
        cause.checkpoints += 1
        cause.noted = False

    def repeated(self, now: float) -> int:
        """How many causes are repeated ones now."""
        every = (*self._services.values(), *self._clients.values())
        return sum(self._level(cause, now) >= REPEATED for cause in every)

    def status(self, now: float) -> list[dict[str, Any]]:
        """The causes with the longest delays, for `colo status`."""
        every = (*self._services.items(), *self._clients.items())
        worst = sorted(every, key=lambda one: (-self._level(one[1], now), -one[1].at))[:SHOWN]
        return [
            {
                "cause": key,
                "checkpoints": cause.checkpoints,
                "delay_ms": int(self._delay(cause) * 1000),
                "wait_ms": max(int((cause.at + self._delay(cause) - now) * 1000), 0),
                "reason": cause.reason,
                "flow": cause.flow,
            }
            for key, cause in worst
            if self._level(cause, now)
        ]

    def _level(self, cause: Cause, now: float) -> int:
        if not self.longest:
            return 0
        return max(cause.level - int((now - cause.at) / self.longest), 0)

    def _delay(self, cause: Cause) -> float:
        """Seconds from its last checkpoint to its next. A level is lost after at least as long, so no wait gets
        shorter.
        """
        if not cause.level or not self.longest:
            return 0.0
        return min(FIRST * 2.0 ** (cause.level - 1), self.longest)
