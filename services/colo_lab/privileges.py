"""The privileges that a lab needs, and how it gets them without root.

Root has all of them. Any other user runs the lab inside a user namespace, in which that user is root and may make
network namespaces and taps. The system must allow user namespaces for that, and `/dev/net/tun` must be accessible.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from colo_proto.errors import ConfigError

TUN: Final = "/dev/net/tun"
INSIDE: Final = "COLO_LAB_INSIDE"
"""Environment variable of a lab that was started again inside a user namespace."""
_CAP_SYS_ADMIN, _CAP_NET_ADMIN = 21, 12


def missing() -> list[str]:
    """What is missing, in words; an empty list when a lab can run (perhaps inside a user namespace)."""
    out = []
    if shutil.which("unshare") is None:
        out.append("the program unshare (package util-linux)")
    try:
        os.close(os.open(TUN, os.O_RDWR))
    except FileNotFoundError:
        out.append(f"{TUN} (load the tun module, or pass the device into the container)")
    except OSError as error:
        out.append(f"permission to open {TUN}: {error.strerror}")
    if not out and not privileged() and not _unshares("--user", "--map-root-user", "--net", "--mount"):
        out.append(
            "root, or unprivileged user namespaces "
            "(sysctl kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns, "
            "user.max_user_namespaces)"
        )
    return out


def privileged() -> bool:
    """True when this process has CAP_SYS_ADMIN and CAP_NET_ADMIN."""
    effective = int(Path("/proc/self/status").read_text(encoding="utf-8").partition("CapEff:")[2].split()[0], 16)
    return all(effective >> capability & 1 for capability in (_CAP_SYS_ADMIN, _CAP_NET_ADMIN))


def require() -> None:
    """Return when a lab can run in this process. Otherwise start this program again inside a user namespace, or raise
    `ConfigError`, which says what is missing.
    """
    if gaps := missing():
        raise ConfigError("colo lab needs " + ", and ".join(gaps))
    if privileged():
        return
    if os.environ.get(INSIDE):
        raise ConfigError("colo lab needs CAP_SYS_ADMIN and CAP_NET_ADMIN, and a user namespace did not give them")
    os.environ[INSIDE] = "1"
    # The process id and the terminal stay the same; only the namespaces are new. The network namespace is one of them
    # because the lab enters others and returns, and it may return only to one that belongs to its user namespace.
    again = ["unshare", "--user", "--map-root-user", "--mount", "--net", "--", sys.executable, *sys.orig_argv[1:]]
    os.execvp("unshare", again)  # noqa: S606 - no shell is the point


def pid_namespaces() -> bool:
    """True when a guest can have a process id namespace (not in every container)."""
    return _unshares("--pid", "--fork", "--mount-proc")


def _unshares(*namespaces: str) -> bool:
    return subprocess.run(["unshare", *namespaces, "--", "true"], capture_output=True, check=False).returncode == 0
