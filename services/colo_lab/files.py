"""Files that the lab writes for others: its report and its state."""

import json
import os
import stat
from pathlib import Path
from typing import Any

from colo_proto.errors import ConfigError


def write_json(path: str, value: Any) -> None:
    """Write `value` as JSON to `path`. `ConfigError` when that cannot be done.

    A regular file is replaced as a whole, so that nobody sees it half written. A symbolic link stays, and the file that
    it names is replaced. What is no regular file (`/dev/stdout`, a FIFO) is never replaced but written to, and so is
    our own standard output or error, wherever it leads.
    """
    text = json.dumps(value, indent=2) + "\n"
    try:
        number = _standard(path)
        if number is not None:
            _write_all(number, text.encode())
        elif _special(path):
            Path(path).write_text(text, encoding="utf-8")
        else:
            target = Path(os.path.realpath(path))
            partial = target.with_name(f".{target.name}.{os.getpid()}")
            partial.write_text(text, encoding="utf-8")
            partial.replace(target)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error


def _standard(path: str) -> int | None:
    """The descriptor of our standard output or error, when `path` is the same file."""
    try:
        about = os.stat(path)
    except OSError:
        return None
    for number in (1, 2):
        try:
            mine = os.fstat(number)
        except OSError:
            continue
        if (mine.st_dev, mine.st_ino) == (about.st_dev, about.st_ino):
            return number
    return None


def _special(path: str) -> bool:
    """True when `path` is there and is no regular file."""
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        return False


def _write_all(number: int, data: bytes) -> None:
    while data:
        data = data[os.write(number, data) :]
