"""`--rules FILE`: read at the start, and again at SIGHUP."""

from collections.abc import Mapping
from pathlib import Path

from colo_proto.config import Option
from colo_proto.core import Output
from colo_proto.errors import ConfigError
from colo_proto.rules import MAX_TEXT, parse_rules
from colo_runtime.abilities import TakesRules
from colo_runtime.options import Settings


def read_rules(path: str) -> str:
    """The text of a file of rules, which are right. `ConfigError` names the file, and the line."""
    try:
        with Path(path).open("rb") as file:
            text = file.read(MAX_TEXT + 1).decode()
    except OSError as error:
        raise ConfigError(f"--rules {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"--rules {path}: {error}") from None
    parse_rules(text, path)
    return text


def check_rules(table: Mapping[str, Option], settings: Settings) -> None:
    """Look at every file of rules that the settings name. `ConfigError` when one is wrong."""
    for name, value in settings.values.items():
        if value and table[name].kind == "rules":
            read_rules(value)


class RulesFile:
    """The file of one process. Without a path there is nothing to do."""

    def __init__(self, path: str, core: TakesRules) -> None:
        self.path = path
        self._core = core

    def load(self) -> list[Output]:
        """Read it for the core. `ConfigError` when it is wrong; the core then keeps what it has."""
        return self._core.load_rules(read_rules(self.path), self.path) if self.path else []
