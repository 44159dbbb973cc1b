r"""Which taps netdev owns or awaits, which namespaces it was offered, and its answers.

::

     start, offer --TUNSETIFF ok-------------------> owned --get--> reply + descriptor
        \                                             ^  |
         +--exists already--> awaited --return + fd---+  +--the interface is gone: made anew at the next get or offer
                                 |
                                 +--adopt_timeout--> ConfigError: somebody else has an interface of this name

A tap whose namespace is offered (`netns=@NAME`) waits for the offer. It stays in that namespace as long as that exists:
when the process that offered it dies and comes back in another namespace, a guest may still be in the first.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from colo_netdev.allow import Allowed
from colo_netdev.config import NetdevConfig, TapSpec
from colo_netdev.netns import Namespace
from colo_netdev.overflow import overflowed
from colo_netdev.taps import Tap, TapExistsError, adopt_tap, open_tap
from colo_proto.errors import ConfigError
from colo_proto.netdev import Request, TapInfo, encode_error, encode_reply

RETRY_AFTER: Final = 1.0
"""Seconds between attempts to make an awaited tap while there are no descriptors."""
LOOK_EVERY: Final = 1.0
"""Seconds between two looks at what the kernel has dropped."""


class Netdev:
    """The registry of taps. `opener`, `adopter` and `dropped` do the system calls; tests replace them."""

    def __init__(
        self,
        config: NetdevConfig,
        opener: Callable[..., Tap] = open_tap,
        adopter: Callable[[TapSpec, int], Tap] = adopt_tap,
        dropped: Callable[[int], int] = overflowed,
    ) -> None:
        self.config = config
        self.counters: Counter[str] = Counter()
        self.allowed = Allowed(config.grants())
        self.owned: dict[str, Tap] = {}
        self.awaited: dict[str, TapSpec] = {}
        self.offers: dict[str, Namespace] = {}
        self._taps = {spec.name: spec for spec in config.taps()}
        self._opener = opener
        self._adopter = adopter
        self._dropped = dropped
        self._seen: dict[int, int] = {}
        """For each descriptor, how many frames the kernel had dropped there when we last looked."""
        self.next_look = 0.0
        """When to call `look` again."""
        self.deadline: float | None = None
        """When to call `check`, or None."""

    def open(self, now: float) -> None:
        """Create every tap that waits for no offer. Wait for those that exist already, until `adopt_timeout` from
        `now`.
        """
        for spec in self._taps.values():
            if not spec.offer:
                self._create(spec, now)

    def offer(self, name: str, namespace: Namespace, now: float) -> list[Tap]:
        """A namespace is offered by `name` until `withdraw`: make the taps that belong there and are not alive. Returns
        those that were made. `ConfigError` when one cannot be.
        """
        self.counters["offers"] += 1
        self.offers[name] = namespace
        made = []
        for spec in self._taps.values():
            if spec.offer == name and self._is_missing(spec):
                self._create(spec, now)
                if spec.name in self.owned:
                    made.append(self.owned[spec.name])
        return made

    def withdraw(self, name: str, namespace: Namespace) -> None:
        """The process that offered this namespace is gone. A newer offer of the same name stays."""
        if self.offers.get(name) is namespace:
            del self.offers[name]

    def offerable(self, name: str) -> bool:
        """True when a tap is to be placed in the namespace of this name."""
        return any(spec.offer == name for spec in self._taps.values())

    def _open(self, spec: TapSpec) -> None:
        self.owned[spec.name] = self._opener(spec, offered=self.offers.get(spec.offer))

    def _create(self, spec: TapSpec, now: float) -> None:
        try:
            self._open(spec)
        except TapExistsError:
            if not self.config.adopt_timeout:
                raise self._taken(spec) from None
            self.awaited[spec.name] = spec
            self.deadline = now + self.config.adopt_timeout

    def _is_missing(self, spec: TapSpec) -> bool:
        """True when the tap is neither owned nor awaited. A tap whose interface is gone is closed first."""
        tap = self.owned.get(spec.name)
        if tap is not None and not tap.alive:
            self.counters["vanished"] += 1
            self._seen.pop(tap.fd, None)
            tap.close()
            del self.owned[spec.name]
        return spec.name not in self.owned and spec.name not in self.awaited

    def check(self, now: float) -> None:
        """Raise `ConfigError` when an awaited tap was not returned in time. Make it anew if it has vanished."""
        if self.deadline is None or now < self.deadline:
            return
        for spec in list(self.awaited.values()):
            if not spec.offer or spec.offer in self.offers:
                try:
                    self._open(spec)
                except TapExistsError:
                    raise self._taken(spec) from None
                except OSError:
                    # No descriptor is left: try again in a while.
                    self.deadline = now + RETRY_AFTER
                    return
            del self.awaited[spec.name]
        self.deadline = None

    def look(self, now: float) -> dict[str, int]:
        """Count what the kernel has dropped at the taps because nobody read in time. Looks once a second, however often
        it is called. Returns how many frames were dropped since the last look, by tap.
        """
        if now < self.next_look:
            return {}
        self.next_look = now + LOOK_EVERY
        news = {}
        for name, tap in self.owned.items():
            try:
                dropped = self._dropped(tap.fd)
            except OSError:
                # Its interface is gone, or this kernel does not say.
                continue
            # What was dropped before an adoption is in the counts of the netdev before us.
            more = dropped - self._seen.get(tap.fd, dropped if tap.adopted else 0)
            self._seen[tap.fd] = dropped
            self.counters[f"tap.{name}.dropped"] += more
            if more:
                news[name] = more
        return news

    def missing(self) -> list[TapSpec]:
        """Taps that are neither owned nor awaited: their namespace was not offered yet, or they have vanished."""
        return [spec for name, spec in self._taps.items() if name not in self.owned and name not in self.awaited]

    def answer(self, request: Request, fds: list[int]) -> tuple[bytes, int | None]:
        """The reply, and the descriptor that goes with it. `fds` that are kept are removed from the list."""
        get = request.verb == "get"
        self.counters["requests" if get else "returns"] += 1
        spec = self._taps.get(request.tap)
        if spec is None:
            names = f"; {', '.join(self._taps)}" if get else ""
            return self.refused(f"there is no tap {request.tap[:40]!r} here{names}"), None
        return self._get(spec) if get else (self._return(spec, fds), None)

    def refused(self, why: str, *, retry: bool = False) -> bytes:
        """The reply that refuses a request."""
        self.counters["refused"] += 1
        return encode_error(why, retry=retry)

    def _get(self, spec: TapSpec) -> tuple[bytes, int | None]:
        name = spec.name
        why = self._make_missing(spec) if self._is_missing(spec) else ""
        tap = self.owned.get(name)
        if tap is None:
            return self.refused(why or f"tap {name} exists and has not been returned yet", retry=True), None
        self.counters["passed"] += 1
        return encode_reply(_info(tap)), tap.fd

    def _make_missing(self, spec: TapSpec) -> str:
        """Make a tap that is missing. Returns why that is not possible now."""
        if spec.offer and spec.offer not in self.offers:
            return f"tap {spec.name}: nobody has offered the namespace {spec.netns}"
        try:
            self._open(spec)
        except TapExistsError:
            return f"tap {spec.name}: its name is taken for now"
        except ConfigError as error:
            return str(error)
        return ""

    def _return(self, spec: TapSpec, fds: list[int]) -> bytes:
        name = spec.name
        tap = self.owned.get(name)
        if tap is None:
            if not fds:
                return self.refused("no descriptor came with it")
            try:
                tap = self._adopter(spec, fds[0])
            except (ValueError, OSError) as error:
                return self.refused(f"tap {name}: the returned descriptor is not taken: {error}")
            del fds[0]
            self.owned[name] = tap
            self.awaited.pop(name, None)
            if not self.awaited:
                self.deadline = None
            self.counters["adopted"] += 1
        # Several filters hold one tap: the first return was enough.
        return encode_reply(_info(tap))

    def gauges(self) -> dict[str, int]:
        """Levels for status and metrics."""
        return {"taps": len(self.owned), "taps_awaited": len(self.awaited), "offers": len(self.offers)}

    def status(self) -> dict[str, Any]:
        """Details for `colo status`."""
        return {
            "taps": {
                name: {"mac": tap.mac, "mtu": tap.spec.mtu, "vnet_hdr": tap.spec.vnet_hdr, "adopted": tap.adopted}
                for name, tap in self.owned.items()
            },
            "awaited": sorted(self.awaited),
            "offers": sorted(self.offers),
            "allow": self.allowed.status() or "whoever may connect",
        }

    def close(self) -> None:
        """Close every copy. A tap vanishes when no filter holds it either."""
        for tap in self.owned.values():
            tap.close()
        self.owned.clear()

    def _taken(self, spec: TapSpec) -> ConfigError:
        where = f" in netns {spec.netns}" if spec.netns else ""
        return ConfigError(
            f"tap {spec.name}: an interface {spec.kernel_name}{where} exists already and nobody returned it"
        )


def _info(tap: Tap) -> TapInfo:
    return TapInfo(tap.spec.name, tap.spec.vnet_hdr, tap.mac, tap.spec.mtu)
