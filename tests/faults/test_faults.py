"""A short campaign of two faults at a time (`make faults` is the long one); and a seed always gives the same faults."""

import shutil
from collections import Counter

import pytest

from colo_lab import privileges
from faults.campaign import Campaign
from faults.plan import KINDS, plan

PROCESSES = ["m0", "comp0", "frame-p"]
SOCKETS = ["p/control.sock"]
PORTS = ["9003@host-p"]


def test_a_seed_is_a_plan():
    one, same, other = (plan(seed, 50, PROCESSES, PORTS, SOCKETS) for seed in (1, 1, 2))
    assert one == same
    assert one != other
    assert len(one) == 50


def test_everything_is_struck():
    struck = Counter((fault.kind, fault.target) for both in plan(3, 200, PROCESSES, PORTS, SOCKETS) for fault in both)
    assert {kind for kind, _ in struck} == set(KINDS)
    assert max(struck.values()) - min(struck.values()) <= 1


@pytest.fixture
def machine():
    gaps = privileges.missing()
    if not gaps and not privileges.privileged():
        gaps = ["root in this process"]
    if shutil.which("nft") is None:
        gaps.append("the program nft (package nftables)")
    if gaps:
        pytest.skip("needs " + ", and ".join(gaps))


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("wiring", ["faithful", "lean"])
def test_two_at_a_time(wiring, tmp_path):
    """The clients see a stall, no counter contradicts an invariant, and the pair is protected again soon after."""
    campaign = Campaign(1, 6, wiring, logs=str(tmp_path))
    campaign.run()
    print(campaign.summary())
    assert campaign.verdict() == []
