"""Network namespaces: naming them and entering them.

A namespace is named by the id of a process in it, by a path (`/proc/PID/ns/net`,
`/var/run/netns/NAME`), or held by an open descriptor. `setns` moves only the calling thread, which
is what `inside` is for: a socket made there belongs to the namespace for good.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

from colo_proto.errors import ConfigError

CLONE_NEWNET = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)


def open_netns(name: str) -> int:
    """A descriptor of the namespace `name` (process id or path). The caller closes it."""
    path = f"/proc/{name}/ns/net" if name.isdigit() else name
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        what = f"there is no process {name}" if name.isdigit() else f"{path} does not exist"
        raise ConfigError(f"netns={name}: {what}") from None
    except OSError as error:
        raise ConfigError(f"netns={name}: cannot open {path}: {error.strerror}") from None
    # NS_GET_NSTYPE would be stricter; the link text is enough and needs no ioctl number.
    kind = os.readlink(f"/proc/self/fd/{fd}")
    if not kind.startswith("net:"):
        os.close(fd)
        raise ConfigError(f"netns={name}: {path} is not a network namespace")
    return fd


def enter(fd: int) -> None:
    """Move this thread into the namespace of `fd`."""
    _check(_libc.setns(fd, CLONE_NEWNET), "setns")


def new() -> int:
    """Make a namespace; a descriptor of it. This thread is back where it was afterwards."""
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.unshare(CLONE_NEWNET), "unshare")
        try:
            return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            enter(here)
    finally:
        os.close(here)


@contextmanager
def inside(fd: int) -> Iterator[None]:
    """Run the body with this thread in the namespace of `fd`."""
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        enter(fd)
        try:
            yield
        finally:
            enter(here)
    finally:
        os.close(here)


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
