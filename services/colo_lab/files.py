"""Writing the files that others read: the report and the state file."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from colo_proto.errors import ConfigError


def write_json(path: str, value: Any) -> None:
    """Write `value` as JSON to `path`. `ConfigError` when that cannot be done.

    A regular file is replaced as a whole, so that nobody sees it half written. A symbolic link stays, and the file that
    it points to is replaced. Anything else (`/dev/stdout`, a FIFO) is written to and never replaced. This is also true
    for a file that is this process's standard output or standard error.
    """
    text = json.dumps(value, indent=2) + "\n"
    try:
        stream = _standard_stream(path)
        if stream is not None:
            with open(stream, "w", encoding="utf-8", closefd=False) as file:
                file.write(text)
        elif os.path.exists(path) and not os.path.isfile(path):
            Path(path).write_text(text, encoding="utf-8")
        else:
            target = Path(os.path.realpath(path))
            partial = target.with_name(f".{target.name}.{os.getpid()}")
            partial.write_text(text, encoding="utf-8")
            partial.replace(target)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error


def _standard_stream(path: str) -> int | None:
    """The descriptor of standard output or standard error, when it is this file."""
    for number in (1, 2):
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(number), os.stat(path)):
                return number
    return None
