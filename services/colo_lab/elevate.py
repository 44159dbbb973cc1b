"""What a lab needs of the machine, and how it gets that without root.

Root has all of it. Anybody else runs the lab inside a user namespace of their own, in which they are
root and may make network namespaces and taps, provided that the system allows user namespaces and
`/dev/net/tun` may be opened.
"""

import os
import shutil
import subprocess
import sys
from typing import Final

from colo_proto.errors import ConfigError

TUN: Final = "/dev/net/tun"
MARK: Final = "COLO_LAB_INSIDE"
_CAP_SYS_ADMIN, _CAP_NET_ADMIN = 21, 12


def missing() -> list[str]:
    """What is missing, in words; an empty list when a lab can run (perhaps in a user namespace)."""
    out = []
    if shutil.which("unshare") is None:
        out.append("the program unshare (package util-linux)")
    if not os.path.exists(TUN):
        out.append(f"{TUN} (load the tun module, or pass the device into the container)")
        return out
    try:
        os.close(os.open(TUN, os.O_RDWR))
    except OSError as error:
        out.append(f"permission to open {TUN}: {error.strerror}")
        return out
    if not out and not privileged() and not _user_namespaces():
        out.append(
            "root, or unprivileged user namespaces "
            "(sysctl kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns, "
            "user.max_user_namespaces)"
        )
    return out


def privileged() -> bool:
    """True with CAP_SYS_ADMIN and CAP_NET_ADMIN, wherever they come from."""
    with open("/proc/self/status", encoding="ascii") as file:
        for line in file:
            if line.startswith("CapEff:"):
                caps = int(line.split()[1], 16)
                return bool(caps >> _CAP_SYS_ADMIN & 1 and caps >> _CAP_NET_ADMIN & 1)
    return False


def require() -> None:
    """Return when a lab can run in this process. Otherwise start this program again where it can, or say why not."""
    if gaps := missing():
        raise ConfigError("colo lab needs " + ", and ".join(gaps))
    if privileged():
        return
    if os.environ.get(MARK):
        raise ConfigError("colo lab needs CAP_SYS_ADMIN and CAP_NET_ADMIN, and a user namespace did not give them")
    os.environ[MARK] = "1"
    # Same process id, same terminal; only the namespaces are new. The network namespace is one of them because the
    # lab goes into others and comes back, and may come back only to one that belongs to its user namespace.
    again = ["unshare", "--user", "--map-root-user", "--mount", "--net", "--", sys.executable, *sys.orig_argv[1:]]
    os.execvp("unshare", again)  # noqa: S606 - no shell is the point


def pid_namespaces() -> bool:
    """True when a guest can have a process table of its own (not in every container)."""
    return _runs(["unshare", "--pid", "--fork", "--mount-proc", "--", "true"])


def _user_namespaces() -> bool:
    return _runs(["unshare", "--user", "--map-root-user", "--net", "--mount", "--", "true"])


def _runs(argv: list[str]) -> bool:
    return (
        subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
        ).returncode
        == 0
    )
