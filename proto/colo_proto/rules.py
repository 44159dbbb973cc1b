r"""Rules for chosen flows, and masks for bytes in them that may differ: from text to values.

There is one rule in each line, and `#` begins a comment. The first rule that matches a flow is used; a flow that no
rule matches is compared::

    pass    tcp guest-port 3389                        # RDP: never compared, released at once
    pass    udp client 10.0.0.0/8 port 5353
    shadow  tcp guest 10.0.0.2 port 8080-8089          # released at once, compared and reported
    compare tcp guest-port 80 mask /Date: [^\r\n]{29}/ # equal but for this
    compare udp guest-port 123 mask 16:8 mask 32:16    # places in each datagram (TCP: in the stream)

A rule is an action (`compare`, `pass`, `shadow`), a protocol (`tcp`, `udp`, `icmp`, `icmpv6`, `sctp`, `any`, or a
number), and then any of `guest ADDRESS[/BITS]`, `client ADDRESS[/BITS]`, `guest-port P[-Q]`, `client-port P[-Q]`,
`port P[-Q]` (one of the two), `vlan N`, and for compare and shadow `mask OFFSET:LENGTH` or `mask /EXPRESSION/[WINDOW]`.
An expression has RE2's syntax, matches bytes, and sees at most WINDOW bytes (256) on each side of a difference.

Expressions are RE2's because its matching takes time linear in the bytes that it reads: a careless expression such as
`(a+)+$` cannot stop a worker, as it could with Python's `re`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, Final, NamedTuple

from colo_proto.errors import ConfigError
from colo_proto.net import packet as p
from colo_proto.net.flow import about, parts

COMPARE: Final = "compare"
PASS: Final = "pass"  # noqa: S105  a verb
SHADOW: Final = "shadow"
ACTIONS: Final = (COMPARE, PASS, SHADOW)

WINDOW: Final = 256
MAX_WINDOW: Final = 4096
MAX_MASKS: Final = 16
"""Masks of one rule."""
MAX_TEXT: Final = 65536
"""Bytes of a file of rules, which crosses the control link as one message."""
MAX_EXPRESSION_MEMORY: Final = 1 << 20
"""Bytes that RE2 may use for one expression; an expression that needs more is refused."""

_PROTOCOLS = {"tcp": 6, "udp": 17, "icmp": 1, "icmpv6": 58, "sctp": 132, "any": -1}
_TOKEN = re.compile(r"/((?:\\.|[^/\\])+)/(\d*)(?=\s|$)|(\S+)")

Network = IPv4Network | IPv6Network


Expression = re.Pattern[bytes]
"""A compiled expression of RE2, whose interface is that of `re`."""


@dataclass(frozen=True, slots=True)
class Mask:
    """Bytes that may differ: those from `start` to `stop`, or those that `pattern` matches on both sides at the same
    place.
    """

    start: int = 0
    stop: int = 0
    pattern: Expression | None = None
    window: int = WINDOW

    def place(self, position: int) -> int | None:
        """For a mask by place: where the masked bytes around the stream offset `position` end; None outside of them."""
        return self.stop if self.start <= position < self.stop else None

    def covers(self, mine: bytes, its: bytes, at: int) -> int:
        """How far the mask reaches beyond `at` when it matches the same range around `at` on both sides, else 0."""
        if self.pattern is None:
            return 0
        for found in self.pattern.finditer(mine):
            if found.start() > at:
                break
            if found.end() > at:
                other = self.pattern.match(its, found.start())
                return found.end() - at if other is not None and other.end() == found.end() else 0
        return 0


class Named(NamedTuple):
    """The properties of a flow (guest to client) that rules can name."""

    proto: int
    guest: Any
    client: Any
    guest_port: int
    client_port: int
    vlans: tuple[int, ...]


def named(key: bytes) -> Named:
    """The flow of a key. The rule for an ICMP error is the rule of the flow that the error is about."""
    proto, src, dst, sport, dport, vlans = parts(about(key) or key)
    return Named(proto, ip_address(src), ip_address(dst), sport, dport, vlans)


@dataclass(frozen=True, slots=True)
class Rule:
    """One line. Ports are (lowest, highest). A field that is None or -1 matches every flow."""

    action: str = COMPARE
    proto: int = -1
    guest: Network | None = None
    client: Network | None = None
    guest_port: tuple[int, int] | None = None
    client_port: tuple[int, int] | None = None
    port: tuple[int, int] | None = None
    vlan: int | None = None
    masks: tuple[Mask, ...] = ()
    text: str = ""

    def matches(self, flow: Named) -> bool:
        """True when this is a rule for the flow."""
        if self.proto not in {-1, flow.proto} or (self.vlan is not None and self.vlan not in flow.vlans):
            return False
        if self.guest is not None and flow.guest not in self.guest:
            return False
        if self.client is not None and flow.client not in self.client:
            return False
        ports = (flow.guest_port, flow.client_port) if flow.proto in p.WITH_PORTS else ()
        wanted = ((self.guest_port, ports[:1]), (self.client_port, ports[1:]), (self.port, ports))
        return all(not limits or any(limits[0] <= port <= limits[1] for port in found) for limits, found in wanted)

    def normal(self, body: bytes) -> bytes:
        """A datagram with zeros in place of all masked bytes: datagrams that may differ there become equal."""
        for mask in self.masks:
            if mask.pattern is None:
                stop = min(mask.stop, len(body))
                if mask.start < stop:
                    body = body[: mask.start] + bytes(stop - mask.start) + body[stop:]
            else:
                body = mask.pattern.sub(lambda found: bytes(len(found.group())), body)
        return body


DEFAULT: Final = Rule()


@dataclass(frozen=True, slots=True)
class Rules:
    """All rules, in their order."""

    rules: tuple[Rule, ...] = ()

    def find(self, key: bytes) -> Rule:
        """The first rule that matches the flow, or the default."""
        if not self.rules:
            return DEFAULT
        flow = named(key)
        return next((rule for rule in self.rules if rule.matches(flow)), DEFAULT)


def parse_rules(text: str, where: str = "rules") -> Rules:
    """The rules of a text. `ConfigError` names the line and the wrong word."""
    if len(text.encode(errors="replace")) > MAX_TEXT:
        raise ConfigError(f"{where}: {len(text)} characters of rules, at most {MAX_TEXT}")
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        words = _words(line)
        if words:
            try:
                found.append(_rule(words))
            except (ValueError, OverflowError) as error:
                raise ConfigError(f"{where}, line {number}: {error}") from None
    return Rules(tuple(found))


class _Word(NamedTuple):
    text: str
    """As written, including the slashes of an expression."""
    expression: str | None = None
    window: str = ""


def _words(line: str) -> list[_Word]:
    words = []
    for match in _TOKEN.finditer(line):
        expression, window, word = match.groups()
        if word is not None and word.startswith("#"):
            break
        words.append(_Word(match.group(), expression, window or ""))
    return words


def _rule(words: list[_Word]) -> Rule:
    action = words[0].text
    if action not in ACTIONS:
        raise ValueError(f"{action!r}: one of {', '.join(ACTIONS)} expected")
    if len(words) < 2:
        raise ValueError(f"{action}: a protocol is expected ({', '.join(_PROTOCOLS)} or a number)")
    given: dict[str, Any] = {}
    masks: list[Mask] = []
    for at in range(2, len(words), 2):
        word = words[at].text
        if word not in _WORDS and word != "mask":
            raise ValueError(f"unknown word {word!r}; known: {', '.join(_WORDS)}, mask")
        if at + 1 == len(words):
            raise ValueError(f"{word}: a value is expected")
        value = words[at + 1]
        name = word.replace("-", "_")
        if word == "mask":
            masks.append(_mask(value))
        elif name in given:
            raise ValueError(f"{word} is given twice")
        else:
            given[name] = _WORDS[word](value.text)
    if masks and action == PASS:
        raise ValueError("pass compares nothing, so there is nothing to mask")
    if len(masks) > MAX_MASKS:
        raise ValueError(f"{len(masks)} masks, at most {MAX_MASKS}")
    proto = _protocol(words[1].text)
    _possible(words[1].text, proto, given)
    text = " ".join(word.text for word in words)
    return Rule(action, proto, masks=tuple(masks), text=text, **given)


def _possible(name: str, proto: int, given: dict[str, Any]) -> None:
    """`ValueError` when no flow can match such a rule, for that is a mistake."""
    for word in ("guest-port", "client-port", "port"):
        if word.replace("-", "_") in given and proto != -1 and proto not in p.WITH_PORTS:
            raise ValueError(f"{word}: {name} has no ports")
    versions = {word: given[word].version for word in ("guest", "client") if word in given}
    if len(set(versions.values())) > 1:
        raise ValueError("guest and client: one is IPv4, the other IPv6")
    family = {p.PROTO_ICMP: 4, p.PROTO_ICMPV6: 6}.get(proto)
    for word, version in versions.items():
        if family is not None and version != family:
            raise ValueError(f"{word} {given[word]}: {name} goes over IPv{family}")


def _protocol(name: str) -> int:
    if name in _PROTOCOLS:
        return _PROTOCOLS[name]
    if name.isdecimal() and name.isascii() and int(name) < 256:
        return int(name)
    raise ValueError(f"{name!r}: a protocol is expected ({', '.join(_PROTOCOLS)} or a number)")


def _ports(value: str) -> tuple[int, int]:
    low, _, high = value.partition("-")
    if not (low.isdecimal() and (high or low).isdecimal()):
        raise ValueError(f"{value!r}: a port or a range of ports expected")
    limits = int(low), int(high or low)
    if not limits[0] <= limits[1] <= 65535:
        raise ValueError(f"{value!r}: ports are 0 to 65535, the lower one first")
    return limits


def _vlan(value: str) -> int:
    if not (value.isdecimal() and int(value) <= 4095):
        raise ValueError(f"vlan {value}: 0 to 4095 expected")
    return int(value)


_WORDS: dict[str, Callable[[str], object]] = {
    "guest": partial(ip_network, strict=False),
    "client": partial(ip_network, strict=False),
    "guest-port": _ports,
    "client-port": _ports,
    "port": _ports,
    "vlan": _vlan,
}


def _mask(value: _Word) -> Mask:
    if value.expression is not None:
        window = int(value.window or WINDOW)
        if not 0 < window <= MAX_WINDOW:
            raise ValueError(f"mask window {window}: 1 to {MAX_WINDOW} expected")
        return Mask(pattern=_compile(value.expression), window=window)
    start, _, length = value.text.partition(":")
    if not (start.isdecimal() and length.isdecimal() and int(length)):
        raise ValueError(f"mask {value.text!r}: OFFSET:LENGTH or /EXPRESSION/ expected")
    return Mask(int(start), int(start) + int(length))


def _compile(text: str) -> Expression:
    import re2  # noqa: PLC0415  most processes have no expressions, and should start without it

    how = re2.Options()
    # Each byte is one character, and a dot matches every byte.
    how.encoding = re2.Options.Encoding.LATIN1
    how.dot_nl = True
    how.log_errors = False
    how.max_mem = MAX_EXPRESSION_MEMORY
    try:
        expression: Expression = re2.compile(text.encode(), how)
    except re2.error as error:
        why = error.args[0]
        raise ValueError(f"mask /{text}/: {why.decode() if isinstance(why, bytes) else why}") from None
    return expression
