"""A short campaign, and a fault whose harm must be noticed. `make chaos` is the long campaign."""

import pytest

from chaos.checker import FAIL, PASS, UNKNOWN, table
from chaos.nemesis import Strike, cuttable

SHORT = [("m0", "kill"), ("rew0", "restart"), ("redire1", "pause"), ("f2", "cut")]


def strike(campaign, service, fault):
    """One trial; a second one if it has no result (a busy engine could not do it, a client did not answer in time)."""
    for _ in range(2):
        trial, verdict = campaign.trial(Strike(service, fault, 0.3, 0))
        if verdict.verdict != UNKNOWN:
            break
    print(table([(trial, verdict)]))
    return verdict


@pytest.mark.parametrize(("service", "fault"), SHORT)
def test_the_clients_notice_no_more_than_a_stall(campaign, service, fault):
    verdict = strike(campaign, service, fault)
    assert verdict.verdict == PASS, verdict.why
    assert verdict.resets == 0


def test_who_can_be_cut_off(campaign):
    assert cuttable(campaign.project) == ["compare", "f1", "f2", "frame", "frame-s", "m0"]


def test_harm_is_seen(campaign):
    """When a guest is killed, its connections end: the checker must report that."""
    verdict = strike(campaign, "guest", "kill")
    assert verdict.verdict == FAIL
    assert verdict.resets
