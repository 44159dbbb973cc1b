"""Options as data: one frozen dataclass per service says everything about its options.

::

    @dataclass(frozen=True, slots=True)
    class CompareConfig:
        compare_timeout: int = option(3000, unit="ms", least=1, help="ask for a checkpoint when …")
        mode: str = option("enforce", choices=Mode.ALL, help="…")

`options(CompareConfig)` reads that table back; the command line, the environment, the TOML file and
the documents are made from it, so they cannot disagree. A field without `option(…)` works as well,
it merely has no help. `build` makes the dataclass from values of any of these sources: text or
TOML's own types. Names are written with `_` here and with `-` on the command line; both are accepted.
"""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from difflib import get_close_matches
from math import isfinite
from typing import Any, Final, Literal, TypeVar, get_args, get_origin, get_type_hints

from colo_proto.endpoint import parse_endpoint
from colo_proto.errors import ConfigError

Kind = Literal["value", "endpoint", "path", "rules", "host_port", "hidden"]
"""`endpoint`: checked against the grammar of `endpoint`; `host_port`: HOST:PORT; `rules`: a file for
`colo_proto.rules`; `hidden`: not an option.
"""

ON = {"on": True, "yes": True, "true": True, "1": True, "off": False, "no": False, "false": False, "0": False}

SHOWN: Final = 60
"""Characters of a wrong value that an error shows."""
DAY_MS: Final = 24 * 3600 * 1000
DAY_S: Final = 24 * 3600
MAX_IDLE: Final = 366 * DAY_S
MAX_BYTES: Final = 1 << 36
MAX_FLOWS: Final = 1 << 24
"""What the `most` of options is made of: nobody means more, and sums of it are still numbers."""

T = TypeVar("T")
_KEY = "colo.option"


@dataclass(frozen=True, slots=True)
class Option:
    """One row of the table. `default` is `MISSING` when the option is required."""

    name: str
    type: type
    """str, int, float or bool; of one element when `many`."""
    default: Any
    help: str = ""
    unit: str = ""
    kind: Kind = "value"
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    many: bool = False
    """May be given several times; the field is a tuple."""

    @property
    def flag(self) -> str:
        """`--compare-timeout`."""
        return "--" + self.name.replace("_", "-")

    @property
    def required(self) -> bool:
        """True when there is no default."""
        return self.default is MISSING

    def parse(self, value: Any, where: str = "") -> Any:
        """`value` (text, or a TOML type) as this option's type. `ConfigError` names `where`, or the flag."""
        name = where or self.flag
        if self.many:
            values = value if isinstance(value, list | tuple) else [value]
            return tuple(self._one(v, name) for v in values)
        return self._one(value, name)

    def _one(self, value: Any, name: str) -> Any:
        if self.type is bool:
            return _bool(value, name)
        if self.type is int or self.type is float:
            number = _number(value, self.type, name, self.unit)
            if self.least is not None and number < self.least:
                raise ConfigError(f"{name}: at least {self.least:.15g}, not {shown(value)}")
            if self.most is not None and number > self.most:
                raise ConfigError(f"{name}: at most {self.most:.15g}, not {shown(value)}")
            return number
        if not isinstance(value, str):
            raise ConfigError(f"{name}: text expected, not {shown(value)}")
        if self.choices and value not in self.choices:
            raise ConfigError(f"{name}: one of {', '.join(self.choices)}, not {shown(value)}")
        if self.kind == "endpoint" and value:
            try:
                parse_endpoint(value)
            except ConfigError as error:
                raise ConfigError(f"{name}: {error}") from None
        if self.kind == "host_port" and value:
            host_port(value, name)
        return value


def option(
    default: Any = MISSING,
    *,
    help: str,  # noqa: A002  the word everybody knows
    unit: str = "",
    kind: Kind = "value",
    choices: tuple[str, ...] = (),
    least: float | None = None,
    most: float | None = None,
) -> Any:
    """A dataclass field with what the command line and the documents say about it.

    Without `default` the option is required. A field typed `tuple[str, …]` may be given several times.
    """
    about = {"help": help, "unit": unit, "kind": kind, "choices": choices, "least": least, "most": most}
    return field(default=default, metadata={_KEY: about})


def options(cls: type[Any]) -> tuple[Option, ...]:
    """The table of a config dataclass, in the order of its fields. Fields of other types are left out."""
    hints = get_type_hints(cls)
    table = []
    for spec in fields(cls):
        about = dict(spec.metadata.get(_KEY, {}))
        kind, many = hints[spec.name], False
        if get_origin(kind) is tuple:
            kind, many = get_args(kind)[0], True
        if get_origin(kind) is Literal:
            about.setdefault("choices", get_args(kind))
            kind = str
        if kind not in (str, int, float, bool) or about.get("kind") == "hidden":
            continue
        default = spec.default if spec.default_factory is MISSING else spec.default_factory()
        table.append(Option(spec.name, kind, default, many=many, **about))
    return tuple(table)


def build(cls: type[T], values: Mapping[str, Any], where: Mapping[str, str] | None = None) -> T:
    """`cls` from `values` by field name. `where` says where a value came from, for the error text.

    `ConfigError` on an unknown name, a missing required one, or a value that does not fit.
    """
    table = {one.name: one for one in options(cls)}
    given = {}
    for name, value in values.items():
        known = table.get(name.replace("-", "_"))
        if known is None:
            raise ConfigError(unknown(name, table))
        given[known.name] = known.parse(value, (where or {}).get(name, ""))
    for one in table.values():
        if one.required and one.name not in given:
            raise ConfigError(f"{one.flag}: required ({one.help})" if one.help else f"{one.flag}: required")
    return cls(**given)


def unknown(name: str, known: Mapping[str, Any] | tuple[str, ...] | list[str], what: str = "option") -> str:
    """The line that refuses `name` and suggests what was probably meant."""
    near = get_close_matches(name.lstrip("-").replace("-", "_"), [k.replace("-", "_") for k in known], 1)
    return f"unknown {what} {name!r}" + (f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}")


def shown(value: object) -> str:
    """A wrong value in an error's one line: whole when it is short."""
    try:
        text = repr(value)
    except ValueError:
        return "a number of thousands of digits"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def host_port(text: str, name: str = "") -> tuple[str, int]:
    """`HOST:PORT` apart; `[::1]:80` gives `::1`; an empty host means all addresses."""
    host, sep, port = text.rpartition(":")
    if not sep or not port.isascii() or not port.isdigit() or len(port) > 5 or int(port) > 65535:
        raise ConfigError(f"{name + ': ' if name else ''}HOST:PORT expected, not {shown(text)}")
    return host.strip("[]"), int(port)


def _bool(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return value
    word = ON.get(str(value).strip().lower()) if isinstance(value, str) or value in (0, 1) else None
    if word is None:
        raise ConfigError(f"{name}: on or off, not {shown(value)}")
    return word


def _number(value: Any, kind: type, name: str, unit: str) -> Any:
    what = ("a whole number" if kind is int else "a number") + (f" ({unit})" if unit else "")
    wrong = ConfigError(f"{name}: {what} expected, not {shown(value)}")
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise wrong
    try:
        number = kind(value)
    except (ValueError, OverflowError):
        raise wrong from None
    if (isinstance(value, float) and number != value) or (isinstance(number, float) and not isfinite(number)):
        raise wrong
    return number
