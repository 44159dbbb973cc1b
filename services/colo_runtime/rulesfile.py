"""`--rules FILE`: read at the start, and again at SIGHUP."""

from colo_proto.core import Output
from colo_proto.rules import MAX_TEXT, parse_rules
from colo_runtime.abilities import TakesRules
from colo_runtime.files import read_file


def read_rules(path: str) -> str:
    """The text of a file of rules, after checking it. `ConfigError` names the file, and the line of a wrong rule."""
    text = read_file("--rules", path, MAX_TEXT + 1)
    parse_rules(text, path)
    return text


class RulesFile:
    """The file of rules of one process; with an empty path there is none."""

    def __init__(self, path: str, core: TakesRules) -> None:
        self.path = path
        self._core = core

    def load(self) -> list[Output]:
        """Read it for the core. `ConfigError` when it is wrong; the core then keeps the rules that it has."""
        return self._core.load_rules(read_rules(self.path), self.path) if self.path else []
