"""`--pair-secret FILE`: the secret that only the two frames of a pair know.

A line `pair-secret = "…"` holds 64 hexadecimal digits. There may be up to four such lines, so that the secret can be
changed without a moment at which one host does not believe the other: first add the new secret behind the old one on
both hosts, then put it first on both, then remove the old one. Claims are sealed with the first secret and believed
with each of them. The file is read at the start, and again at SIGHUP.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from colo_proto.claim import MAX_SECRETS
from colo_proto.core import Log, Output
from colo_proto.errors import ConfigError
from colo_runtime.files import read_file, readable_by_others, write_files

OPTION: Final = "--pair-secret"
BYTES: Final = 32
_LINE: Final = re.compile(r"""^[ \t]*pair-secret[ \t]*=[ \t]*["']?([^\s"']*)["']?[ \t]*$""", re.MULTILINE)
_MAX_FILE: Final = 1 << 16


def read_secrets(path: str) -> list[bytes]:
    """The secrets in a file. `ConfigError` names the file and what is wrong with it."""
    found = _LINE.findall(read_file(OPTION, path, _MAX_FILE, "not a file with a secret (not text)"))
    if not 1 <= len(found) <= MAX_SECRETS:
        raise ConfigError(f'{OPTION} {path}: 1 to {MAX_SECRETS} lines pair-secret = "…", not {len(found)}')
    for word in found:
        if not re.fullmatch(f"[0-9a-fA-F]{{{2 * BYTES}}}", word):
            raise ConfigError(f"{OPTION} {path}: a secret is {2 * BYTES} hexadecimal digits")
    return [bytes.fromhex(word) for word in found]


def write_secret(directory: str, name: str) -> Path:
    """Make a new secret in `directory/NAME.pair_secret` (mode 0600). `ConfigError` when the file exists already."""
    head = "#   SECRET of a pair: the same file on both of its hosts, and nowhere else.\n\n"
    (path,) = write_files(
        "secret", directory, name, {"pair_secret": (0o600, f'{head}pair-secret = "{os.urandom(BYTES).hex()}"\n')}
    )
    return path


def load_secrets(path: str, use: Callable[[list[bytes]], list[Output]]) -> list[Output]:
    """Read the secrets, give them to `use` of the core, and return its outputs; with an empty path there is no file.

    `ConfigError` when the file is wrong; the core then keeps the secrets that it has.
    """
    if not path:
        return []
    outputs = use(read_secrets(path))
    if readable_by_others(path):
        outputs.append(Log("warning", "key.exposed", {"path": path}))
    return outputs
