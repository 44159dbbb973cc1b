import pytest

from parity.rigs import QEMU


@pytest.fixture(scope="session")
def qemu():
    """Skips what needs QEMU's binary."""
    if QEMU is None:
        pytest.skip("qemu-system-x86_64 is not installed")
    return QEMU


@pytest.fixture(scope="module")
def rigs(qemu):
    """Filters that are kept running for a module: `rigs(key, make)`."""
    running = {}

    def get(key, make):
        if key not in running:
            running[key] = make()
        return running[key]

    yield get
    for one in running.values():
        one.close()
