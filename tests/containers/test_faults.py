"""One service at a time is killed, paused or restarted under load: the short version of `make chaos`."""

import os
import signal

import pytest

from chaos.campaign import Campaign
from chaos.checker import PASS, UNKNOWN
from chaos.nemesis import Strike

TRIALS = [("netdev", "kill"), ("compare", "restart"), ("f1", "pause")]


@pytest.fixture(scope="module")
def campaign(pair):
    one = Campaign(pair, print)
    one.start()
    return one


@pytest.mark.parametrize(("service", "fault"), TRIALS)
def test_a_transfer_survives(campaign, service, fault):
    """Check for right bytes and no reset. A run in which the engine was too busy shows nothing: repeat it once."""
    for delay in (0.5, 0.0):
        _, verdict = campaign.trial(Strike(service, fault, delay, 0))
        if verdict.verdict != UNKNOWN:
            break
    assert verdict.verdict == PASS, verdict.why
    assert verdict.resets == 0


def test_a_killed_netdev_has_its_taps_back(pair):
    """The interfaces and their addresses stay the same, so nobody behind them notices."""

    def looks():
        return [pair.exec(s, "cat", f"/sys/class/net/{i}/ifindex", f"/sys/class/net/{i}/address")
                for s, i in (("guest-net", "eth0"), ("lan", "lan"))]  # fmt: skip

    before = looks()
    target = pair.container("netdev")
    os.kill(target.pid, signal.SIGKILL)
    pair.await_ready()
    assert pair.container("netdev").pid != target.pid
    assert looks() == before
    netdev = next(one for one in pair.status()["processes"] if one["id"] == "netdev-p")
    assert all(tap["adopted"] for tap in netdev["status"]["taps"].values())


@pytest.mark.parametrize("service", ["lan", "guest-net"])
def test_a_namespace_that_is_killed(pair, service):
    """`lan` returns with a new namespace, which gets a new tap. That of guest-net stays while the guest is in it."""
    os.kill(pair.container(service).pid, signal.SIGKILL)
    if service == "lan":
        pair.await_healthy("lan")
    assert pair.job("page", "--path=/x", "--timeout=60")["wrong"] == 0
    if service == "guest-net":
        # The guest moves into the new namespace when it is restarted itself; its tap follows.
        pair.compose("restart", "guest")
        pair.await_healthy("guest-net", "guest")
        assert pair.job("page", "--path=/x", "--timeout=60")["wrong"] == 0
