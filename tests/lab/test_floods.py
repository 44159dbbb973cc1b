"""A client makes guests send packets whose rate each guest limits by itself. Equal guests need no checkpoint."""

import sys
from pathlib import Path

import pytest

from .conftest import SERVER

FLOOD = f"{sys.executable} -P {Path(__file__).with_name('flood.py')}"
SECONDS = 4


@pytest.mark.parametrize(("wiring", "workers"), [("faithful", 1), ("lean", 2)])
def test_a_flood_from_spoofed_addresses_wants_no_checkpoint(lab, wiring, workers):
    kinds = "protocol port one protocol6 port6 one6 timestamp echo"
    run = lab(
        *("--guest", SERVER, "--wiring", wiring, "--compare", str(workers)),
        # After it, compare gives up errors only after compare_timeout and a scan.
        client=f"{FLOOD} {SECONDS} 3000 {kinds} && sleep 5",
    )
    assert run.status == 0, run.err + run.out
    (line,) = run.lines
    assert line["sent"] > 500 * SECONDS
    compare = run.report["compare"]
    assert compare["checkpoints_wanted"] == {}, compare["last"]
    assert (compare["checkpoints_done"], compare["miscompares"], compare["flows_unprotected"]) == (0, 0, 0)
    assert compare["frames_primary"] > 500, "the guests answered"
    assert compare["held"] == compare["held_secondary"] == 0
    for name in ("S1", "S4", "S5", "S6", "L1", "E2"):
        assert run.report["invariants"][name] == "held", (name, run.report["invariants_why"][name])


def test_guests_that_do_differ_get_checkpoints_ever_more_slowly(lab):
    """The secondary answers no ping, so the first ping of every client differs. 200 clients request 200 checkpoints."""
    silent = "echo 1 > /proc/sys/net/ipv4/icmp_echo_ignore_all; sleep 1000"
    run = lab(
        *("--guest", "sleep 1000", "--secondary-guest", silent, "--guest-wait", "1"),
        *("--compare-timeout", "300", "--expired-scan-cycle", "100"),
        client=f"{FLOOD} 8 25 echo; sleep 1",
    )
    assert run.status == 0, run.err + run.out
    compare = run.report["compare"]
    assert sum(compare["checkpoints_wanted"].values()) > 50, "it is the same difference each time"
    # Checkpoints come after 0, 1, 3, and 7 seconds, and perhaps one more.
    assert 2 <= compare["checkpoints_done"] <= 5
    assert run.report["invariants"]["L1"] == "held", run.report["invariants_why"]
