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


def load_rules(path: str, core: TakesRules) -> list[Output]:
    """Read the file of rules for a core, and return the outputs of the core; with an empty path there is no file.

    `ConfigError` when the file is wrong; the core then keeps the rules that it has.
    """
    return core.load_rules(read_rules(path), path) if path else []
