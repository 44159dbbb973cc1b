"""Writing the files that others read: the report and the state file."""

import contextlib
import json
import os
import stat
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
        about = os.stat(path) if os.path.exists(path) else None
        if about is not None and (stream := _standard_stream(about)) is not None:
            with open(stream, "w", encoding="utf-8", closefd=False) as file:
                file.write(text)
        elif about is not None and not stat.S_ISREG(about.st_mode):
            Path(path).write_text(text, encoding="utf-8")
        else:
            target = Path(os.path.realpath(path))
            partial = target.with_name(f".{target.name}.{os.getpid()}")
            partial.write_text(text, encoding="utf-8")
            partial.replace(target)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error


def _standard_stream(about: os.stat_result) -> int | None:
    """The descriptor of standard output or standard error, when it is this file."""
    for number in (1, 2):
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(number), about):
                return number
    return None
