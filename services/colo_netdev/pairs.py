"""The grammar that `--tap` and `--allow` have in common: `key=value,key=value`."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from colo_proto.config import shown
from colo_proto.errors import ConfigError

Parser = Callable[[str], Any]
"""Returns what a value means, or raises a `ValueError` that goes on after the key."""


def parse_pairs(what: str, pairs: Iterable[str], keys: Mapping[str, Parser]) -> dict[str, Any]:
    """What is given, by key. The `ConfigError` for a mistake begins with `what`."""
    given: dict[str, Any] = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        key = key.strip().replace("-", "_")
        if key not in keys:
            raise ConfigError(f"{what}: unknown key {key!r}; one of {', '.join(keys)}")
        if not value:
            raise ConfigError(f"{what}: {key} needs a value")
        if key in given:
            raise ConfigError(f"{what}: {key} is given twice")
        try:
            given[key] = keys[key](value)
        except ValueError as error:
            raise ConfigError(f"{what}: {key} {error}") from None
    return given


def number(least: int, most: int, text: str) -> int:
    """A number in this range."""
    if not text.isascii() or not text.isdigit() or len(text) > 10 or not least <= int(text) <= most:
        raise ValueError(f"is a number from {least} to {most}, not {shown(text)}")
    return int(text)


def on_off(text: str) -> bool:
    """A switch."""
    if text not in ("on", "off"):
        raise ValueError(f"is on or off, not {text!r}")
    return text == "on"


def names(text: str) -> tuple[str, ...]:
    """Names with `+` between them."""
    found = tuple(text.split("+"))
    if not all(found):
        raise ValueError(f"is one name or several with + between them, not {shown(text)}")
    return found
