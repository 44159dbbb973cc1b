import os
import signal
import subprocess
import sys

import pytest

from colo_lab.children import Child


@pytest.fixture
def here():
    fd = os.open("/proc/self/ns/net", os.O_RDONLY)
    yield fd
    os.close(fd)


def may_enter(fd):
    """Entering even one's own namespace takes a capability."""
    from colo_netdev import netns

    try:
        netns.enter(fd)
    except PermissionError:
        pytest.skip("needs CAP_SYS_ADMIN")


def run(here, *argv, **options):
    may_enter(here)
    child = Child("test", "t", "here", argv, here, **options)
    child.start()
    return child


def test_status_output_and_usage(here, tmp_path):
    child = run(here, "sh", "-c", "echo one; echo two >&2; exit 3", log=str(tmp_path / "log"))
    assert child.running
    child.reap()
    assert not child.running
    assert child.status == 3
    assert child.tail().splitlines() == ["one", "two"]
    assert child.usage.cpu_seconds > 0
    assert child.usage.max_rss_bytes > 0


def test_a_signal_and_a_second_life(here):
    child = run(here, "sleep", "60")
    first = child.pid
    assert child.running
    child.sample()
    assert 0 < child.usage.max_rss_bytes < 8 << 20, "the program's own memory, not the lab's before exec"
    child.signal(signal.SIGKILL)
    child.reap()
    assert child.status == -signal.SIGKILL
    child.signal(signal.SIGKILL)
    child.start()
    assert child.pid != first
    assert child.restarts == 1
    child.signal(signal.SIGTERM)
    child.reap()
    assert child.status == -signal.SIGTERM


def test_a_program_that_is_not_there(here):
    may_enter(here)
    child = Child("test", "t", "here", ["/does/not/exist"], here)
    with pytest.raises(FileNotFoundError):
        child.start()
    assert not child.running


def test_it_ends_with_its_parent(here):
    may_enter(here)
    script = (
        "import os, sys; from colo_lab.children import Child\n"
        "fd = os.open('/proc/self/ns/net', os.O_RDONLY)\n"
        "c = Child('t', 't', 'h', ['sleep', '60'], fd); c.start(); print(c.pid, flush=True); sys.stdin.read()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    pid = int(parent.stdout.readline())
    pidfd = os.pidfd_open(pid)
    parent.kill()
    parent.wait()
    parent.stdin.close()
    parent.stdout.close()
    import select

    assert select.select([pidfd], [], [], 5)[0], "the child outlives its parent"
    os.close(pidfd)
