r"""Which taps netdev owns or awaits, which namespaces it was offered, and its answers.

::

     start, offer --TUNSETIFF ok-------------------> owned --get--> reply + descriptor
        \                                             ^  |
         +--exists already--> awaited --return + fd---+  +--the interface is gone: opened anew at the next get or offer
                                 |
                                 +--adopt_timeout--> ConfigError: the name is taken by somebody else

A tap whose namespace is offered (`netns=@NAME`) waits for the offer. It stays where it is as long as it lives: when
the one who offered dies and comes back with another namespace, a guest may still be in the first.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any, Final, Protocol

from colo_netdev.allow import Allowed
from colo_netdev.config import NetdevConfig, TapSpec
from colo_netdev.overflow import overflowed
from colo_netdev.space import Space
from colo_netdev.taps import Tap, TapExistsError, adopt_tap, open_tap
from colo_proto.errors import ConfigError
from colo_proto.netdev import Request, TapInfo, encode_error, encode_reply

AGAIN = 1.0
"""Seconds between attempts to make an awaited tap while there are no descriptors."""
EVERYBODY = "whoever may connect"
"""Who may have the taps when no `--allow` says it."""
LOOK_EVERY: Final = 1.0
"""Seconds between two looks at what the kernel has dropped."""


class Opener(Protocol):
    """Makes a tap; `offered` is the namespace for it when its place is an offered one."""

    def __call__(self, spec: TapSpec, *, offered: Space | None = None) -> Tap:
        """`TapExistsError`, `ConfigError`."""
        ...


class Adopter(Protocol):
    """Takes a returned descriptor."""

    def __call__(self, spec: TapSpec, fd: int) -> Tap:
        """`ValueError`, `OSError`."""
        ...


class Netdev:
    """The registry. `opener`, `adopter` and `dropped` do the system calls; tests hand in others."""

    def __init__(
        self,
        config: NetdevConfig,
        opener: Opener = open_tap,
        adopter: Adopter = adopt_tap,
        dropped: Callable[[int], int] = overflowed,
    ) -> None:
        self.config = config
        self.counters: Counter[str] = Counter()
        self.allowed = Allowed(config.grants())
        self.owned: dict[str, Tap] = {}
        self.awaited: dict[str, TapSpec] = {}
        self.offers: dict[str, Space] = {}
        self._taps = config.taps()
        self._opener = opener
        self._adopter = adopter
        self._dropped = dropped
        self._seen: dict[int, int] = {}
        """By descriptor, how many frames the kernel had dropped there when we last looked."""
        self._look_at = 0.0
        self._give_up: float | None = None

    def open(self, now: float) -> None:
        """Create every tap that waits for no offer; those that exist already are awaited until `adopt_timeout` from
        `now`.
        """
        for spec in self._taps:
            if not spec.offer:
                self._create(spec, now)

    def offer(self, name: str, space: Space, now: float) -> list[Tap]:
        """A namespace is offered by `name` until `withdraw`: make the taps that belong there and are not alive.
        Those that were made. `ConfigError` when one cannot be.
        """
        self.counters["offers"] += 1
        self.offers[name] = space
        made = []
        for spec in self._taps:
            if spec.offer != name:
                continue
            self._bury(spec)
            if spec.name not in self.owned and spec.name not in self.awaited:
                self._create(spec, now)
                if spec.name in self.owned:
                    made.append(self.owned[spec.name])
        return made

    def withdraw(self, name: str, space: Space) -> None:
        """Who offered it is gone. A newer offer by the same name stays."""
        if self.offers.get(name) is space:
            del self.offers[name]

    def offerable(self, name: str) -> bool:
        """Is any tap to go there?"""
        return any(spec.offer == name for spec in self._taps)

    def _create(self, spec: TapSpec, now: float) -> None:
        try:
            self.owned[spec.name] = self._opener(spec, offered=self.offers.get(spec.offer))
        except TapExistsError:
            if not self.config.adopt_timeout:
                raise self._taken(spec) from None
            self.awaited[spec.name] = spec
            self._give_up = now + self.config.adopt_timeout

    def _bury(self, spec: TapSpec) -> None:
        tap = self.owned.get(spec.name)
        if tap is not None and not tap.alive:
            self.counters["vanished"] += 1
            self._seen.pop(tap.fd, None)
            tap.close()
            del self.owned[spec.name]

    def deadline(self) -> float | None:
        """When `check` must be called, or None."""
        return self._give_up

    def check(self, now: float) -> None:
        """Give up when an awaited tap was not returned in time. An interface that has vanished is made anew."""
        if self._give_up is None or now < self._give_up:
            return
        for spec in list(self.awaited.values()):
            if not spec.offer or spec.offer in self.offers:
                try:
                    self.owned[spec.name] = self._opener(spec, offered=self.offers.get(spec.offer))
                except TapExistsError:
                    raise self._taken(spec) from None
                except OSError:
                    # No descriptor is left: once more in a while.
                    self._give_up = now + AGAIN
                    return
            del self.awaited[spec.name]
        self._give_up = None

    def look(self, now: float) -> dict[str, int]:
        """Count what the kernel has dropped at the taps because nobody read in time: every second, whatever was asked.
        How many frames since the last look, by tap.
        """
        if now < self._look_at:
            return {}
        self._look_at = now + LOOK_EVERY
        news = {}
        for name, tap in self.owned.items():
            try:
                dropped = self._dropped(tap.fd)
            except OSError:
                # Its interface is gone, or this kernel does not say.
                continue
            # What an adopted tap dropped before is in the counts of the netdev before us.
            more = dropped - self._seen.get(tap.fd, dropped if tap.adopted else 0)
            self._seen[tap.fd] = dropped
            self.counters[f"tap.{name}.dropped"] += more
            if more:
                news[name] = more
        return news

    def next_look(self) -> float:
        """When to look again."""
        return self._look_at

    @property
    def ready(self) -> bool:
        """True when every tap is owned."""
        return len(self.owned) == len(self._taps)

    def missing(self) -> list[TapSpec]:
        """Taps that are neither owned nor awaited: their namespace was not offered yet, or they have vanished."""
        return [spec for spec in self._taps if spec.name not in self.owned and spec.name not in self.awaited]

    def answer(self, request: Request, fds: list[int]) -> tuple[bytes, int | None]:
        """The reply, and the descriptor that goes with it. `fds` that are kept are removed from the list."""
        if request.verb == "get":
            self.counters["requests"] += 1
            return self._get(request.tap)
        self.counters["returns"] += 1
        return self._return(request.tap, fds), None

    def _get(self, name: str) -> tuple[bytes, int | None]:
        spec = next((one for one in self._taps if one.name == name), None)
        why = ""
        if spec is not None:
            self._bury(spec)
            if name not in self.owned and name not in self.awaited:
                why = self._again(spec)
        tap = self.owned.get(name)
        if tap is not None:
            self.counters["passed"] += 1
            return encode_reply(_info(tap)), tap.fd
        self.counters["refused"] += 1
        if spec is not None:
            return encode_error(why or f"tap {name} exists and has not been returned yet", retry=True), None
        return encode_error(f"there is no tap {name[:40]!r} here; {', '.join(t.name for t in self._taps)}"), None

    def _again(self, spec: TapSpec) -> str:
        """Make a tap that is missing; why that does not go now."""
        if spec.offer and spec.offer not in self.offers:
            return f"tap {spec.name}: nobody has offered the namespace {spec.netns}"
        try:
            self.owned[spec.name] = self._opener(spec, offered=self.offers.get(spec.offer))
        except TapExistsError:
            return f"tap {spec.name}: its name is taken for now"
        except ConfigError as error:
            return str(error)
        return ""

    def _return(self, name: str, fds: list[int]) -> bytes:
        tap = self.owned.get(name)
        if tap is not None:
            # Several filters hold one tap; the first return was enough.
            return encode_reply(_info(tap))
        spec = self.awaited.get(name) or next((one for one in self.missing() if one.name == name), None)
        if spec is None or not fds:
            self.counters["refused"] += 1
            why = "no descriptor came with it" if spec else f"there is no tap {name[:40]!r} here"
            return encode_error(why)
        try:
            tap = self._adopter(spec, fds[0])
        except (ValueError, OSError) as error:
            self.counters["refused"] += 1
            return encode_error(f"tap {name}: the returned descriptor is not taken: {error}")
        del fds[0]
        self.owned[name] = tap
        self.awaited.pop(name, None)
        if not self.awaited:
            self._give_up = None
        self.counters["adopted"] += 1
        return encode_reply(_info(tap))

    def gauges(self) -> dict[str, int]:
        """Levels for status and metrics."""
        return {"taps": len(self.owned), "taps_awaited": len(self.awaited), "offers": len(self.offers)}

    def status(self) -> dict[str, Any]:
        """Details for `colo status`."""
        return {
            "ready": self.ready,
            "taps": {
                name: {"mac": tap.mac, "mtu": tap.spec.mtu, "vnet_hdr": tap.spec.vnet_hdr, "adopted": tap.adopted}
                for name, tap in self.owned.items()
            },
            "awaited": sorted(self.awaited),
            "offers": sorted(self.offers),
            "allow": self.allowed.status() or EVERYBODY,
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
