"""`--pair-secret FILE`: what the two frames of a pair know and nobody else; read at the start, and again at SIGHUP.

A line `pair-secret = "…"` holds 64 hexadecimal digits. There may be up to four such lines, so that the secret can be
changed without a moment at which one host does not believe the other: first the new one goes behind the old one on both
hosts, then before it on both, then the old one goes. Claims are sealed with the first, and believed with each.
"""

import os
import re
from pathlib import Path
from typing import Any, Final, Protocol

from colo_proto.claim import MAX_SECRETS
from colo_proto.core import Log, Output
from colo_proto.errors import ConfigError

OPTION: Final = "--pair-secret"
BYTES: Final = 32
_LINE: Final = re.compile(r"""^[ \t]*pair-secret[ \t]*=[ \t]*["']?([^\s"']*)["']?[ \t]*$""", re.MULTILINE)
_MAX_FILE: Final = 1 << 16


class TakesSecrets(Protocol):
    """The frame."""

    def use_secrets(self, secrets: list[bytes]) -> list[Output]:
        """Seal with the first, believe each."""
        ...


def read_secrets(path: str) -> list[bytes]:
    """The secrets in a file. `ConfigError` names the file and what is wrong with it."""
    try:
        with Path(path).open("rb") as file:
            text = file.read(_MAX_FILE).decode()
    except OSError as error:
        raise ConfigError(f"{OPTION} {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{OPTION} {path}: not a file with a secret (not text)") from None
    found = _LINE.findall(text)
    if not 1 <= len(found) <= MAX_SECRETS:
        raise ConfigError(f'{OPTION} {path}: 1 to {MAX_SECRETS} lines pair-secret = "…", not {len(found)}')
    for word in found:
        if not re.fullmatch(f"[0-9a-fA-F]{{{2 * BYTES}}}", word):
            raise ConfigError(f"{OPTION} {path}: a secret is {2 * BYTES} hexadecimal digits")
    return [bytes.fromhex(word) for word in found]


def write_secret(directory: str, name: str) -> Path:
    """Make a secret: `NAME.pair_secret` (0600) in `directory`. `ConfigError` when it is there already."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name):
        raise ConfigError(f"--name {name}: letters, digits, '_', '.', '-', at most 64")
    path = Path(directory) / f"{name}.pair_secret"
    head = "#   SECRET of a pair: the same file on both of its hosts, and nowhere else.\n\n"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(f'{head}pair-secret = "{os.urandom(BYTES).hex()}"\n')
    except FileExistsError:
        raise ConfigError(f"{path}: exists; a secret is not overwritten") from None
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}") from None
    return path


class SecretFile:
    """The file of one process. Without a path there is nothing to do."""

    def __init__(self, path: str, core: Any) -> None:
        self.path = path
        self._core: TakesSecrets = core

    def load(self) -> list[Output]:
        """Read it for the core. `ConfigError` when it is wrong; the core then keeps what it has."""
        if not self.path:
            return []
        outputs = self._core.use_secrets(read_secrets(self.path))
        if exposed(self.path):
            outputs.append(Log("warning", "key.exposed", {"path": self.path}))
        return outputs


def exposed(path: str) -> bool:
    """True when others than its owner and group may read a secret file."""
    return bool(Path(path).stat().st_mode & 0o004)
