"""Options as data: one frozen dataclass for each service says everything about its options.

::

    @dataclass(frozen=True, slots=True)
    class CompareConfig:
        compare_timeout: int = option(3000, unit="ms", least=1, help="ask for a checkpoint when …")
        mode: str = option("enforce", choices=Mode.ALL, help="…")

`options(CompareConfig)` reads that table back. The command line, the environment, the TOML file and the documents are
all made from it, so they cannot disagree. A field without `option(…)` is an option too, only without a help text.
`build` makes the dataclass from values of any of these sources: text, or the types of TOML. Names are written with `_`
here and with `-` on the command line; both are accepted everywhere.
"""

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from difflib import get_close_matches
from math import isfinite
from typing import Any, Final, Literal, TypeVar, get_args, get_origin, get_type_hints

from colo_proto.endpoint import SWITCH, parse_endpoint, split_host_port
from colo_proto.errors import ConfigError

Kind = Literal["value", "endpoint", "path", "rules", "host_port", "hidden"]
"""`endpoint`: checked against the grammar of `endpoint`; `host_port`: HOST:PORT; `rules`: a file for
`colo_proto.rules`; `hidden`: a field of the dataclass that is not an option.
"""

SHOWN: Final = 60
"""An error shows at most this many characters of a wrong value."""
DAY_MS: Final = 24 * 3600 * 1000
DAY_S: Final = 24 * 3600
MAX_IDLE: Final = 366 * DAY_S
MAX_BYTES: Final = 1 << 36
MAX_FLOWS: Final = 1 << 24
"""Upper bounds (`most`) for options: far more than anybody needs, and sums of such values are still usable numbers."""

T = TypeVar("T")
_KEY = "colo.option"
_SWITCH = SWITCH | {"1": True, "0": False}


@dataclass(frozen=True, slots=True)
class Option:
    """One row of the table. `default` is `MISSING` when the option is required."""

    name: str
    type: type
    """str, int, float or bool; when `many` is true, the type of one element."""
    default: Any
    help: str = ""
    unit: str = ""
    kind: Kind = "value"
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    many: bool = False
    """The option may be given several times; the field is a tuple."""

    @property
    def flag(self) -> str:
        """The name on the command line, such as `--compare-timeout`."""
        return flag(self.name)

    @property
    def required(self) -> bool:
        """True when there is no default."""
        return self.default is MISSING

    def parse(self, value: Any, where: str = "") -> Any:
        """Convert `value` (text, or a TOML type) to the type of this option.

        `ConfigError` begins with `where`, which says where the value came from; without it, with the flag.
        """
        name = where or self.flag
        if self.many:
            return tuple(self._one(v, name) for v in (value if isinstance(value, list | tuple) else [value]))
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
    help: str,  # noqa: A002  the word that every library uses for it
    unit: str = "",
    kind: Kind = "value",
    choices: tuple[str, ...] = (),
    least: float | None = None,
    most: float | None = None,
) -> Any:
    """Declare a dataclass field together with what the command line and the documents say about it.

    Without `default` the option is required. A field of the type `tuple[str, …]` may be given several times.
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
        if kind in (str, int, float, bool) and about.get("kind") != "hidden":
            default = spec.default if spec.default_factory is MISSING else spec.default_factory()
            table.append(Option(spec.name, kind, default, many=many, **about))
    return tuple(table)


def build(cls: type[T], values: Mapping[str, Any]) -> T:
    """Make a `cls` from `values` by field name.

    `ConfigError` for an unknown name, a missing required option, or a value that the option does not accept.
    """
    table = {one.name: one for one in options(cls)}
    given = {}
    for name, value in values.items():
        known = table.get(name.replace("-", "_"))
        if known is None:
            raise ConfigError(unknown(name, table))
        given[known.name] = known.parse(value)
    for one in table.values():
        if one.required and one.name not in given:
            raise ConfigError(f"{one.flag}: required ({one.help})" if one.help else f"{one.flag}: required")
    return cls(**given)


def flag(name: str) -> str:
    """The name of an option on the command line: `compare_timeout` becomes `--compare-timeout`."""
    return "--" + name.replace("_", "-")


def unknown(name: str, known: Iterable[str], what: str = "option") -> str:
    """The error text for an unknown `name`: it suggests the known name that was probably meant."""
    close = get_close_matches(name.lstrip("-").replace("-", "_"), [k.replace("-", "_") for k in known], 1)
    return f"unknown {what} {name!r}" + (f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}")


def shown(value: object) -> str:
    """A wrong value as an error line shows it: complete when it is short, otherwise its beginning."""
    try:
        text = repr(value)
    except ValueError:
        return "a number of thousands of digits"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def host_port(text: str, name: str = "") -> tuple[str, int]:
    """Host and port of `HOST:PORT`; an empty host means all addresses. `ConfigError` begins with `name`."""
    found = split_host_port(text)
    if found is None:
        raise ConfigError(f"{name + ': ' if name else ''}HOST:PORT expected, not {shown(text)}")
    return found


def _bool(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return value
    word = _SWITCH.get(str(value).strip().lower()) if isinstance(value, str) or value in (0, 1) else None
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
