"""Reading small text files whose names are options, and writing new files with keys and secrets."""

import os
import re
from pathlib import Path

from colo_proto.errors import ConfigError


def read_file(option: str, path: str, limit: int, not_text: str = "") -> str:
    """The text of a file, of which at most `limit` bytes are read.

    `ConfigError` names the option and the file when it cannot be read, or when it is not UTF-8 text; `not_text` is said
    about the latter in place of the exact byte.
    """
    try:
        with Path(path).open("rb") as file:
            return file.read(limit).decode()
    except OSError as error:
        raise ConfigError(f"{option} {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{option} {path}: {not_text or error}") from None


def write_files(kind: str, directory: str, name: str, files: dict[str, tuple[int, str]]) -> list[Path]:
    """Write new files `directory/NAME.SUFFIX`, each with its mode and its text, and return their paths.

    `ConfigError` when the name is not allowed, when one of the files exists already (a secret or a key is never
    overwritten), or when a file cannot be written. `kind` names in the error what would have been overwritten.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name):
        raise ConfigError(f"--name {name}: letters, digits, '_', '.', '-', at most 64")
    folder = Path(directory)
    paths = {folder / f"{name}.{suffix}": about for suffix, about in files.items()}
    for path in paths:
        if path.exists():
            raise ConfigError(f"{path}: exists; a {kind} is not overwritten")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path, (mode, text) in paths.items():
            # O_EXCL: a file that somebody makes at this moment is not overwritten either.
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
                os.fchmod(file.fileno(), mode)
                file.write(text)
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}") from None
    return list(paths)


def readable_by_others(path: str) -> bool:
    """True when users other than the owner and the group of a secret file may read it."""
    return bool(Path(path).stat().st_mode & 0o004)
