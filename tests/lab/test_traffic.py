"""Real programs on real TCP/IP stacks through the whole chain: all answers are right, and no checkpoint is needed.

The sizes are for CI. With COLO_LAB_FULL=1 they are those that the project promises (1 GB, 100,000 echoes).
"""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from .conftest import CLIENT, SERVER, inhabitants, wait_for

FULL = bool(os.environ.get("COLO_LAB_FULL"))
SIZE = 1_000_000_000 if FULL else 100_000_000
REQUESTS = 1000 if FULL else 200
ECHOES = 100_000 if FULL else 10_000

SETUPS = [("faithful", 1), ("lean", 1), ("faithful", 2), ("lean", 2)]


def check(run):
    """Check what must hold for every run with equal guests."""
    assert run.status == 0, run.err + run.out
    assert all(line["wrong"] == 0 for line in run.lines), run.lines
    report = run.report
    compare = report["compare"]
    assert report["exit"] == 0
    assert report["settled"], "the counters never came to rest"
    assert compare["checkpoints_wanted"] == {}, compare["last"]
    assert compare["miscompares"] == 0
    assert compare["flows_unprotected"] == 0
    assert compare["frames_primary"] > 0
    assert compare["frames_secondary"] > 0
    assert report["restarts"] == 0
    assert report["mirror"]["gaps"] == 0
    for name in ("S1", "S4", "S5", "S6", "L1", "E2"):
        assert report["invariants"][name] == "held", (name, report["invariants_why"][name])


def jobs(*words):
    return " && ".join(f"{CLIENT} {word}" for word in words)


@pytest.mark.parametrize(("wiring", "workers"), SETUPS)
def test_everything_at_once(lab, wiring, workers):
    run = lab(
        *("--guest", SERVER, "--wiring", wiring, "--compare", str(workers)),
        client=jobs(
            f"http --count {REQUESTS}",
            f"http --count {REQUESTS} --keep-alive -6",
            f"download --size {SIZE}",
            f"upload --size {SIZE}",
            f"udp --count {ECHOES}",
            f"udp --count {ECHOES // 10} -6",
        ),
        timeout=600 if FULL else 240,
    )
    check(run)
    assert [line["job"] for line in run.lines] == ["http", "http", "download", "upload", "udp", "udp"]
    assert all(line["lost"] == 0 for line in run.lines if line["job"] == "udp")
    assert run.report["compare"]["bytes_compared"] >= SIZE
    assert run.report["rewriter"]["flows"] >= REQUESTS
    compares = [p for p in run.report["processes"] if p["role"] == "compare"]
    assert len(compares) == workers
    assert all(p["counters"]["frames_primary"] for p in compares), "a worker had nothing to do"


@pytest.mark.parametrize("wiring", ["faithful", "lean"])
def test_equal_guests_in_shadow_mode(lab, wiring):
    """Clients do not wait for the secondary, which serves them nevertheless. Some of them give up half-way."""
    run = lab(
        *("--guest", SERVER, "--wiring", wiring, "--mode", "shadow"),
        client=jobs(
            f"http --count {REQUESTS}",
            f"http --count {REQUESTS} --keep-alive -6",
            f"download --size {SIZE // 10}",
            f"upload --size {SIZE // 10}",
        )
        + f" && for n in 1 2 3 4 5 6; do {CLIENT} download --size 3000000 & {CLIENT} upload --size 3000000 & done; wait"
        + f"; for n in $(seq 10); do timeout -s KILL 0.6 {CLIENT} download --size 1000000000; done; sleep 5",
    )
    assert all(line["wrong"] == 0 for line in run.lines), run.lines
    compare = run.report["compare"]
    assert compare["miscompares"] == 0, compare["last"]
    assert compare["checkpoints_wanted"] == {}, compare["last"]
    assert compare["flows_unprotected"] == 0
    assert compare["bytes_compared"] >= SIZE // 10
    assert compare["flows"] >= REQUESTS
    assert run.report["restarts"] == 0


@pytest.fixture
def halted(background, tmp_path):
    """`halted(wiring, job, pids, *options)` runs a lab in shadow mode whose client does `job`, while some processes
    stand still for a second. It returns the report.
    """

    def play(wiring, job, pids, *options):
        report, going = tmp_path / "report.json", tmp_path / "going"
        process, read = background(
            *("--guest", SERVER, "--wiring", wiring, "--mode", "shadow", "--report", str(report), *options),
            client=f"touch {going}; {CLIENT} {job} && sleep 6",
        )
        wait_for(going.exists, 20, "the client")
        time.sleep(0.5)
        chosen = pids(read())
        try:
            for pid in chosen:
                os.kill(pid, signal.SIGSTOP)
            time.sleep(1)
        finally:
            for pid in chosen:
                os.kill(pid, signal.SIGCONT)
        assert process.wait(60) == 0
        return json.loads(report.read_text())

    return play


@pytest.mark.parametrize("wiring", ["faithful", "lean"])
def test_a_primary_that_is_ahead_of_all_memory_is_not_different(halted, wiring):
    """The host of the secondary stands still while the client continues, and compare may keep little."""
    report = halted(
        wiring,
        "download --size 250000000 --rate 1e8",
        lambda state: [one["pid"] for one in state["processes"] if one["id"] == "rew0"],
        *("--option", "compare.max-held-mib=16"),
    )
    compare = report["compare"]
    assert compare["miscompares"] == 0, compare["last"]
    assert compare["checkpoints_wanted"] == {}, compare["last"]
    assert compare["flows_unprotected"] == compare["flows_unjudged"] == 0
    (counters,) = (one["counters"] for one in report["processes"] if one["role"] == "compare")
    assert counters["frames_unkept"] > 0
    assert counters["bytes_unjudged"] > 0
    assert counters["bytes_compared"] >= 1 << 24
    assert counters["bytes_compared"] + counters["bytes_unjudged"] >= 250_000_000


@pytest.mark.parametrize("wiring", ["faithful", "lean"])
def test_a_secondary_that_could_not_follow_its_client_is_judged_no_more(halted, wiring):
    """The server of the secondary stands still while the client uploads more than the rewriter keeps."""

    def servers(state):
        inside = inhabitants({os.stat(state["namespaces"]["guest-s"]).st_ino})
        return [pid for pid in inside if "programs.server" in Path(f"/proc/{pid}/cmdline").read_text()]

    report = halted(wiring, "upload --size 250000000 --rate 1e8", servers)
    compare = report["compare"]
    assert compare["miscompares"] == 0, compare["last"]
    assert compare["checkpoints_wanted"] == {}, compare["last"]
    assert compare["flows_unjudged"] == 1
    assert compare["flows_unprotected"] == 0


@pytest.mark.parametrize("wiring", ["faithful", "lean"])
def test_ping_of_many_sizes(lab, wiring):
    if shutil.which("ping") is None:
        pytest.skip("needs ping (iputils-ping)")
    sizes = [0, 1, 8, 16, 40, 56, 100, 200, 400, 512, 800, 1000, 1200, 1400, 1472, 1473, 2000, 3000, 4000, 8000]
    loop = "".join(
        f"ping -q -c 1 -W 5 -s {size} $COLO_GUEST >/dev/null || exit {i + 1};" for i, size in enumerate(sizes)
    )
    loop += "".join(
        f"ping -6 -q -c 1 -W 5 -s {size} $COLO_GUEST6 >/dev/null || exit {i + 101};" for i, size in enumerate(sizes)
    )
    run = lab("--wiring", wiring, client=loop)
    check(run)


def test_many_at_once(lab):
    run = lab(
        *("--guest", SERVER),
        client=f"for n in $(seq 8); do {CLIENT} download --size 5000000 & {CLIENT} upload --size 5000000 & done; wait",
    )
    check(run)
    assert len(run.lines) == 16
