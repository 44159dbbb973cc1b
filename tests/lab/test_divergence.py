"""Guests that do not do the same: the difference is found and explained, and nothing wrong was released before it."""

import json

import pytest

from .conftest import CLIENT, SERVER

FLIP = 50_000_000


@pytest.mark.parametrize("wiring", ["faithful", "lean"])
def test_one_changed_byte_in_a_download(lab, wiring):
    run = lab(
        *("--guest", SERVER, "--secondary-guest", f"{SERVER} --flip {FLIP}", "--wiring", wiring),
        client=f"{CLIENT} download --size 100000000",
    )
    # The bytes of the primary are right, and the flush driver lets the flow continue.
    assert run.status == 0, run.err + run.out
    compare = run.report["compare"]
    assert compare["checkpoints_wanted"].get("payload") == 1
    assert compare["miscompares"] >= 1
    assert compare["checkpoints_done"] >= 1
    last = next(one for one in compare["last"] if one["reason"] == "payload")
    head = len("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
    assert last["offset"] == head + FLIP
    assert "10.77.0.2" in last["flow"]
    primary, secondary = (bytes.fromhex(last[side]) for side in ("primary", "secondary"))
    at = last["context"]
    assert primary[:at] == secondary[:at]
    assert primary[at] ^ secondary[at] == 1
    assert run.report["invariants"]["S6"] == "held", run.report["invariants_why"]
    assert run.report["invariants"]["E2"] == "unknown"


def test_nothing_after_the_difference_had_been_released_before_the_checkpoint(lab):
    # This frame never finishes a checkpoint, so whatever is released was released without one.
    run = lab(
        *("--guest", SERVER, "--secondary-guest", f"{SERVER} --flip {FLIP}"),
        *("--option", "frame.checkpoint-interval=600000", "--timeout", "8"),
        client=f"{CLIENT} page --path /x >/dev/null; {CLIENT} download --size 100000000",
    )
    assert run.report["compare"]["miscompares"] >= 1, json.dumps(run.report["compare"])


def test_a_silent_secondary(lab):
    run = lab(
        *("--guest", SERVER, "--secondary-guest", "ip link set eth0 down; sleep 1000", "--guest-wait", "1"),
        *("--compare-timeout", "1000", "--expired-scan-cycle", "500"),
        client=f"{CLIENT} page --path /x",
    )
    assert run.status == 0, run.err + run.out
    assert run.lines[0]["seconds"] >= 1.0, "held until compare_timeout"
    assert run.lines[0]["seconds"] < 1.0 + 0.5 + 3.5, "and not for much longer than a scan (and a retransmission)"
    assert run.report["compare"]["checkpoints_wanted"].get("timeout", 0) >= 1
    assert run.report["compare"]["frames_secondary"] <= run.report["compare"]["frames_primary"]
    assert run.report["invariants"]["L1"] == "held"


def test_bypass_needs_no_secondary(lab):
    run = lab(
        *("--guest", SERVER, "--secondary-guest", "ip link set eth0 down; sleep 1000", "--guest-wait", "1"),
        *("--mode", "bypass"),
        client=f"{CLIENT} download --size 10000000",
    )
    assert run.status == 0, run.err + run.out
    assert run.report["compare"]["checkpoints_wanted"] == {}
    assert run.report["compare"]["released_by"]["mode"] > 0
    assert run.report["invariants"]["S1"] == "unknown"
