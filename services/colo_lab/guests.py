"""How the command of a guest is started: what it sees of this machine, and how it knows which replica it is. Pure."""

from collections.abc import Mapping
from typing import Final

from colo_proto.topology import Side

PRIVATE: Final = ("run", "tmp")
"""Folders that two hosts would not share. `/tmp` comes last, because the scratch folder may lie below it."""

_PRIVATE_FOLDERS: Final = (
    'scratch=$1; command=$2; mount -t tmpfs -o mode=0700 tmpfs "$scratch" || exit 1; '
    f"for name in {' '.join(PRIVATE)}; do "
    'mkdir "$scratch/$name" "$scratch/$name.work"; chmod "$(stat -c %a "/$name")" "$scratch/$name"; '
    'mount -t overlay overlay -o "lowerdir=/$name,upperdir=$scratch/$name,workdir=$scratch/$name.work" "/$name" || '
    'echo "colo lab: both guests share /$name, because an overlay could not be mounted there" >&2; done; '
    'exec sh -c "$command"'
)
"""Each guest writes into a layer of its own over `/run` and `/tmp`. It still sees what is below, because the program
that it runs may lie there.
"""


def argv(command: str, scratch: str, *, own_processes: bool) -> list[str]:
    """The words that start `command`, a line for the shell. `scratch` is an empty folder of this guest alone.

    With `own_processes` the guest has a process table of its own, and whatever the command starts ends with it.
    """
    processes = ["--pid", "--fork", "--kill-child=KILL", "--mount-proc"] if own_processes else []
    unshare = ["unshare", "--mount", "--propagation", "private", *processes, "--"]
    return [*unshare, "sh", "-c", _PRIVATE_FOLDERS, "sh", scratch, command]


def environment(side: Side, machine: Mapping[str, str]) -> dict[str, str]:
    """The environment of a guest: `COLO_SIDE` says which replica it is."""
    return {**machine, "COLO_SIDE": side}
