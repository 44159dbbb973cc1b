"""Many connections at once: the queues are long enough, nothing is dropped, and equal guests need no checkpoint."""

import sys
from pathlib import Path

import pytest

from .conftest import CLIENT, SERVER
from .test_traffic import check

SHORT = f"exec {sys.executable} {Path(__file__).parents[1] / 'short.py'}"
"""Thousands of short connections a second, each with one request."""


def overflowed(report):
    """What queues had no room for, by process and counter."""
    return {
        (process["id"], name): n
        for process in report["processes"]
        for name, n in process["counters"].items()
        if n and (name.endswith("queue_full") or (name.startswith("tap.") and name.endswith(".dropped")))
    }


@pytest.mark.parametrize("wiring", ["faithful", "lean"])
def test_fifty_downloads_and_fifty_uploads_at_once(lab, wiring):
    run = lab(
        *("--guest", f"{SERVER} --congestion cubic", "--wiring", wiring),
        client=f"{CLIENT} parallel --count 50 --size 1000000 --congestion cubic && "
        f"{CLIENT} parallel --upload --count 50 --size 1000000 --congestion cubic",
        timeout=240,
    )
    check(run)
    assert [line["bytes"] for line in run.lines] == [50_000_000, 50_000_000]
    assert overflowed(run.report) == {}
    assert run.report["compare"]["dropped"] == {}
    taps = [name for process in run.report["processes"] for name in process["counters"] if name.endswith("dropped")]
    assert "tap.guest-p.dropped" in taps
    assert "tap.guest-s.dropped" in taps


@pytest.mark.parametrize("wiring", ["faithful", "lean"])
@pytest.mark.parametrize(
    "way", [("--size", "3000000"), ("--size", "1000000", "--upload")], ids=["downloads", "uploads"]
)
def test_five_hundred_at_once_fit_into_the_queues(lab, wiring, way):
    """Without a bound on their windows they lose hundreds of frames at once, and stand still for half a minute."""
    run = lab(
        *("--guest", f"{SERVER} --congestion cubic", "--wiring", wiring),
        client=f"{CLIENT} parallel --count 500 --congestion cubic {' '.join(way)}",
        timeout=240,
    )
    check(run)
    assert run.lines[0]["bytes"] == 500 * int(way[1])
    assert overflowed(run.report) == {}
    lowered = {one["id"]: one["counters"].get("windows_lowered", 0) for one in run.report["processes"]}
    assert lowered["comp0" if "--upload" in way else "m0"] > 0


@pytest.mark.parametrize("wiring", ["faithful", "lean"])
def test_short_connections_one_after_another_from_many(lab, wiring):
    run = lab(
        *("--guest", SERVER, "--wiring", wiring),
        client=" & ".join(f"{CLIENT} http --count 250" for _ in range(8)) + " & wait",
        timeout=240,
    )
    check(run)
    assert sum(line["requests"] for line in run.lines) == 2000


@pytest.mark.parametrize("wiring", ["faithful", "lean"])
def test_two_thousand_short_connections_a_second(lab, wiring):
    run = lab(
        *("--guest", f"{SHORT} serve", "--wiring", wiring),
        client=f"{SHORT} ask --count 10000 --rate 2000 --flight 2000",
        timeout=240,
    )
    check(run)
    assert run.lines[0]["requests"] == 10000
    assert overflowed(run.report) == {}
