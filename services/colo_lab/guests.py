"""How the command of a guest is started, and which files of this machine it sees. Pure."""

from typing import Final

PRIVATE: Final = ("run", "tmp")
"""Folders that two hosts would not share. `/tmp` comes last, because the scratch folder may be in it."""

_PRIVATE_FOLDERS: Final = (
    'scratch=$1; command=$2; mount -t tmpfs -o mode=0700 tmpfs "$scratch" || exit 1; '
    f"for name in {' '.join(PRIVATE)}; do "
    'mkdir "$scratch/$name" "$scratch/$name.work"; chmod "$(stat -c %a "/$name")" "$scratch/$name"; '
    'mount -t overlay overlay -o "lowerdir=/$name,upperdir=$scratch/$name,workdir=$scratch/$name.work" "/$name" || '
    'echo "colo lab: both guests share /$name, because an overlay could not be mounted there" >&2; done; '
    'exec sh -c "$command"'
)
"""Each guest writes into an overlay of its own over `/run` and `/tmp`. It still sees the machine's files there, because
the program that it runs may be one of them.
"""


def argv(command: str, scratch: str, *, own_processes: bool) -> list[str]:
    """The command line that starts `command`, a line for the shell. `scratch` is an empty folder for this guest only.

    With `own_processes` the guest gets a process id namespace, so that everything the command starts ends with it.
    """
    processes = ["--pid", "--fork", "--kill-child=KILL", "--mount-proc"] if own_processes else []
    unshare = ["unshare", "--mount", "--propagation", "private", *processes, "--"]
    return [*unshare, "sh", "-c", _PRIVATE_FOLDERS, "sh", scratch, command]
