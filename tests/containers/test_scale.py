"""`--scale compare=N`, up and down, while 200 connections send and receive."""

import pytest

from chaos.campaign import Load
from lab.conftest import wait_for

STEPS = (4, 2, 1)
UNCOMPARED = ("mode", "unprotected", "checkpoint")


def released_uncompared(status):
    """Worker -> frames that it has released uncompared since it started."""
    compares = [one for one in status["processes"] if one["role"] == "compare"]
    return {
        (one["id"], one["incarnation"]): sum(one["counters"].get(f"released.{cause}", 0) for cause in UNCOMPARED)
        for one in compares
    }


@pytest.fixture(scope="module")
def rescaled(pair):
    """The result of the client, the versions of the table, and the frames that were released uncompared, while there
    are first one worker, then four, two, and one."""
    before = pair.status()
    # The pair may have had faults before, which are counted here as well.
    already = released_uncompared(before)
    versions, uncompared = [before["table"]["version"]], {}
    load = Load(pair, "crowd", "--connections=200", "--seconds=45", service="client-http")
    try:
        assert load.begun.wait(60)
        for count in STEPS:
            pair.compose("up", "-d", "--no-deps", "--no-recreate", "--scale", f"compare={count}", "compare")
            wait_for(lambda count=count: len(pair.status()["table"]["workers"]) == count, 60, f"{count} workers")
            status = pair.status()
            versions.append(status["table"]["version"])
            uncompared |= {who: n - already.get(who, 0) for who, n in released_uncompared(status).items()}
        return load.result(180), versions, uncompared
    finally:
        load.close()


def test_no_connection_is_reset_and_no_byte_is_wrong(rescaled):
    result, versions, _ = rescaled
    print(result, versions)
    assert result["wrong"] == 0, result
    assert result["failures"] == {}
    assert result["answers"] >= 200
    assert versions == sorted(set(versions)), "every change is a new version of the table, and colo status shows it"


def test_no_frame_is_released_uncompared(rescaled):
    _, _, uncompared = rescaled
    assert sum(uncompared.values()) == 0, uncompared
