"""The primary dies while a client is served, and the client does not notice. All three ends are real TCP/IP stacks.

The sizes are for CI. `make failovers` runs what the project promises many times, and prints the distribution.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile

import pytest

from colo_lab.config import LabConfig
from colo_runtime.client import NoAnswerError
from pairlab import Lab

from .conftest import CLIENT, SERVER

JOBS = {
    "download": "download --size 120000000 --rate 40000000",
    "upload": "upload --size 120000000 --rate 40000000",
    "requests": "rr --seconds 5",
    "fifty": "parallel --count 50 --size 2500000 --rate 800000",
}


def test_the_command_line_does_it(lab):
    run = lab(
        *("--guest", SERVER, "--failover", "1", "--option", "frame.heartbeat-interval=200"),
        client=f"{CLIENT} rr --seconds 6 --timeout 100",
        timeout=200,
    )
    assert run.status == 0, run.err + run.out
    assert all(line["wrong"] == 0 for line in run.lines), run.lines
    report = run.report
    assert report["failover"]["promoted"]
    # At most the timeout, two heartbeats, and what a loaded machine adds; at least as long as a short stall may be.
    assert report["failover"]["silence_ms"] >= 1000
    assert report["invariants"]["S5"] == "held", report["invariants_why"]["S5"]
    assert report["invariants"]["S3"] != "violated", report["invariants_why"]["S3"]


class Stage:
    """A lab in this process, with a client that runs, and a script: a generator that yields to let time pass."""

    def __init__(self, **config):
        extra = {"frame": {"heartbeat-interval": "200"}, **config.pop("extra", {})}
        self.lab = Lab(LabConfig(guest=SERVER, start_timeout=60, watch_lan=True, extra=extra, **config))

    def run(self, job, script, then=""):
        """The script begins when the job of the client is under way. `then` is a job that follows."""
        with self.lab, tempfile.TemporaryFile() as out:
            steps = script(self.lab)

            def tick(_now):
                if os.fstat(out.fileno()).st_size:
                    next(steps, None)

            status = self.lab.run_client(words(job), timeout=150, interval=0.05, output=out.fileno(), on_tick=tick)
            self.right(status, out)
            assert next(steps, "over") == "over", "the client ended before the script did"
            if then:
                self.right(self.lab.run_client(words(then), timeout=100, output=out.fileno()), out)
            return self.lab.report()

    def right(self, status, out):
        out.seek(0)
        text = out.read().decode()
        assert status == 0, text
        assert json.loads(text.splitlines()[-1])["wrong"] == 0, text


def words(job):
    return [sys.executable, "-P", "-m", "colo_lab.programs.client", *job.split(), "--announce", "--timeout", "100"]


def death(lab):
    """The primary host dies a moment after the job has begun."""
    for _ in range(10):
        yield
    lab.fail("host-p")
    while state(lab, "secondary") != "promoted":
        yield


def went_on(report, connections=1):
    """What must hold of every failover."""
    assert report["failover"]["promoted"]
    assert report["failover"]["connections_continued"] >= connections, report["lan"]
    for name in ("S3", "S5"):
        assert report["invariants"][name] == "held", report["invariants_why"][name]
    assert "lan-s" not in report["lan"]["resets"]


@pytest.mark.usefixtures("privileged")
@pytest.mark.parametrize(
    ("wiring", "job", "more"),
    [
        ("faithful", "download", ""),
        ("lean", "download", " -6"),
        ("faithful", "upload", " -6"),
        ("lean", "upload", ""),
        ("faithful", "requests", ""),
        ("lean", "fifty", ""),
    ],
)
def test_the_primary_host_dies(wiring, job, more):
    stage = Stage(wiring=wiring, extra={"frame-s": {"failover": "auto"}})
    went_on(stage.run(JOBS[job] + more, death, then="http --count 5" + more))


@pytest.mark.usefixtures("privileged")
def test_the_same_on_a_bad_lan():
    stage = Stage(loss=1, reorder=1, extra={"frame-s": {"failover": "auto"}})
    went_on(stage.run("download --size 30000000 --rate 8000000", death, then="http --count 5"))


@pytest.mark.usefixtures("privileged")
def test_idle_connections_are_still_there():
    stage = Stage(wiring="lean", extra={"frame-s": {"failover": "auto"}})
    went_on(stage.run("idle --count 200 --pause 8", death), connections=200)


def state(lab, side):
    return lab.frame(side)["leadership"]["state"]


@pytest.mark.usefixtures("privileged")
def test_a_primary_host_that_stood_still_does_not_write_when_it_wakes():
    def script(lab):
        for _ in range(10):
            yield
        victims = [one.id for one in lab.supervisor.children.values() if one.host in ("host-p", "guest-p")]
        for name in victims:
            lab.kill(name, signal.SIGSTOP)
        while state(lab, "secondary") != "promoted":
            yield
        for _ in range(10):
            yield
        for name in victims:
            lab.kill(name, signal.SIGCONT)
        while state(lab, "primary") != "fenced":
            yield
        for _ in range(10):
            yield

    report = Stage(extra={"frame-s": {"failover": "auto"}}).run("rr --seconds 9", script)
    assert report["invariants"]["S5"] == "held", report["invariants_why"]["S5"]
    assert report["invariants"]["S3"] == "held", report["invariants_why"]["S3"]
    assert report["lan"]["frames"]["lan-s"] > 0


@pytest.mark.usefixtures("privileged")
@pytest.mark.parametrize("wiring", ["faithful", "lean"])
def test_the_link_between_the_hosts_is_cut_and_both_live(wiring):
    """The secondary is permitted to take over by itself, but does not, because it hears the primary on the LAN."""

    def script(lab):
        for _ in range(10):
            yield
        lab.cut()
        while lab.frame("primary")["mode"] != "bypass":
            yield
        for _ in range(40):
            assert state(lab, "secondary") == "standby"
            yield
        assert state(lab, "primary") == "alone"

    report = Stage(wiring=wiring, extra={"frame-s": {"failover": "auto"}}).run("rr --seconds 9", script)
    assert report["invariants"]["S5"] == "held", report["invariants_why"]["S5"]
    assert set(report["lan"]["frames"]) == {"lan-p"}


@pytest.mark.usefixtures("privileged")
def test_counters_add_up_after_a_link_that_was_cut_is_back():
    """Frames that were dropped because there was no worker, or were under way at that moment, count once."""

    def script(lab):
        for _ in range(10):
            yield
        lab.cut()
        while lab.frame("primary")["mode"] != "bypass":
            yield
        for _ in range(50):
            yield
        lab.cut(cut=False)
        while not lab.frame("primary")["peer"]["alive"]:
            yield
        lab.order("resync", "primary")
        while lab.frame("primary")["mode"] != "enforce":
            yield

    # The secondary guest repeats what nobody acknowledges.
    report = Stage(wiring="lean").run("download --size 400000000 --rate 20000000", script)
    assert report["invariants"]["S6"] == "held", report["invariants_why"]["S6"]


@pytest.mark.usefixtures("privileged")
def test_the_secondary_dies_and_another_is_brought_in():
    def script(lab):
        for _ in range(10):
            yield
        lab.fail("host-s")
        while lab.frame("primary")["mode"] != "bypass":
            yield
        lab.revive("host-s")
        while not lab.frame("primary")["peer"]["alive"]:
            yield
        assert lab.frame("primary")["mode"] == "bypass"
        lab.order("resync", "primary")
        while lab.frame("primary")["verdict"]["causes"][0]["reason"] != "flows":
            yield
        # The only connection is from before, and would break. With one that is compared, a failover has a use.
        assert lab.frame("secondary")["leadership"]["promotable"] is False
        another = lab.popen("client", words("rr --seconds 5"), stdout=subprocess.DEVNULL)
        while not lab.frame("secondary")["leadership"]["promotable"]:
            yield
        while lab.frame("primary")["verdict"]["level"] != "degraded":
            yield
        while another.poll() is None:
            yield

    stage = Stage()
    report = stage.run("rr --seconds 20", script)
    assert report["invariants"]["S5"] == "held"
    assert set(report["lan"]["frames"]) == {"lan-p"}
    assert report["compare"]["flows_unprotected"] <= 1


def again(lab, before):
    """The state of the frame of the primary after it was started again; empty until then."""
    try:
        about = lab.frame("primary")
    except NoAnswerError:
        return ""
    return about["leadership"]["state"] if about["incarnation"] != before else ""


@pytest.mark.usefixtures("privileged")
def test_the_frame_is_restarted_while_there_is_no_secondary():
    """The frame learns from the compare workers that nothing is compared, and traffic continues."""

    def script(lab):
        for _ in range(10):
            yield
        lab.fail("host-s")
        while lab.frame("primary")["mode"] != "bypass":
            yield
        before = lab.frame("primary")["incarnation"]
        lab.kill("frame-p", signal.SIGKILL)
        while again(lab, before) != "alone":
            yield
        for _ in range(10):
            yield
        assert lab.frame("primary")["mode"] == "bypass"

    report = Stage().run("rr --seconds 12", script)
    assert report["invariants"]["S5"] == "held", report["invariants_why"]["S5"]
    assert set(report["lan"]["frames"]) == {"lan-p"}


@pytest.mark.usefixtures("privileged")
def test_a_promoted_secondary_that_stood_still_asks_before_it_writes():
    def script(lab):
        for _ in range(10):
            yield
        lab.order("failover", "secondary")
        while (state(lab, "primary"), state(lab, "secondary")) != ("fenced", "promoted"):
            yield
        victims = [one.id for one in lab.supervisor.children.values() if one.host == "host-s"]
        for name in victims:
            lab.kill(name, signal.SIGSTOP)
        for _ in range(30):
            yield
        for name in victims:
            lab.kill(name, signal.SIGCONT)
        while lab.frame("secondary")["counters"].get("leadership.promoted", 0) < 2:
            yield
        for _ in range(10):
            yield
        assert state(lab, "secondary") == "promoted"

    report = Stage().run("rr --seconds 12", script)
    assert report["invariants"]["S5"] == "held", report["invariants_why"]["S5"]


@pytest.mark.usefixtures("privileged")
@pytest.mark.parametrize("wiring", ["faithful", "lean"])
def test_a_planned_failover(wiring):
    def script(lab):
        for _ in range(10):
            yield
        assert lab.order("failover", "secondary")["state"] == "taking"
        while state(lab, "secondary") != "promoted":
            yield
        assert state(lab, "primary") == "fenced"

    report = Stage(wiring=wiring).run("download --size 120000000 --rate 40000000", script)
    for name in ("S3", "S5"):
        assert report["invariants"][name] == "held", report["invariants_why"][name]
    assert report["failover"]["connections_continued"] >= 1
