"""A secondary whose chain is broken is no secondary: the verdict says so, and new connections do not wait for it."""

import json
import subprocess
import sys
import time

import pytest

from colo_lab.config import LabConfig
from colo_lab.namespaces import GUEST_IF
from colo_lab.supervisor import LabError
from colo_netdev import netns
from pairlab import Lab

from .conftest import SERVER

CLIENT = [sys.executable, "-P", "-m", "colo_lab.programs.client"]
TIMEOUT = 2.5
"""The defaults of heartbeat_interval and heartbeat_missed give this, in seconds."""
NOTICED = 4.0
"""Seconds that a loaded machine may take to notice a break and to hear of it: two heartbeats, and a report."""


class Stage:
    """A lab whose client does nothing but wait, while a script breaks things and measures with clients of its own."""

    def __init__(self, script, **config):
        self.lab = Lab(LabConfig(guest=SERVER, start_timeout=60, **config))
        with self.lab:
            steps = script(self)

            def tick(_now):
                if next(steps, "over") == "over":
                    waiting.finished = True

            waiting = Waiting()
            status = self.lab.run_client(
                ["sleep", "120"], timeout=120, interval=0.05, on_tick=tick, interrupted=waiting.interrupted
            )
            assert waiting.finished, f"the script did not end within 120 s (status {status})"

    def level(self, side):
        return self.lab.frame(side)["verdict"]["level"]

    def status(self, side):
        """The exit status of `colo status` and the first line."""
        status, text = self.lab.colo("status", side, "--timeout", "10")
        return status, text.splitlines()[0]

    def new_connections(self, count=20):
        """The result of so many requests, each on a connection of its own, as a generator that waits for them."""
        argv = [*CLIENT, "http", "--count", str(count), "--timeout", "60"]
        job = self.lab.popen("client", argv, stdout=subprocess.PIPE, text=True)
        while job.poll() is None:
            yield
        return json.loads(job.communicate()[0].splitlines()[-1])


class Waiting:
    """Ends the client when the script is over."""

    def __init__(self):
        self.finished = False

    def interrupted(self):
        return 15 if self.finished else 0


@pytest.mark.usefixtures("privileged")
@pytest.mark.parametrize(
    ("wiring", "victim"), [("faithful", "rew0"), ("faithful", "f1"), ("faithful", "f2"), ("lean", "rew0")]
)
def test_a_secondary_whose_chain_is_broken_is_none(wiring, victim):
    def script(stage):
        lab = stage.lab
        while stage.level("primary") != "protected" or stage.level("secondary") != "protected":
            yield
        assert stage.status("primary") == (0, "protected; the client LAN is at the primary")
        assert stage.status("secondary") == (0, "protected; the client LAN is at the primary")
        lab.end(victim)
        began = time.monotonic()
        while lab.frame("primary")["mode"] != "bypass":
            yield
        gone_alone = time.monotonic() - began
        assert TIMEOUT <= gone_alone < TIMEOUT + NOTICED
        for side in ("primary", "secondary"):
            status, line = stage.status(side)
            assert status == 4
            assert line.startswith(f"unprotected (the secondary's chain is broken: {victim} silent for "), line
        with pytest.raises(LabError, match=f"{victim} silent.*--force"):
            lab.order("failover", "secondary")
        stalls = []
        for _ in range(3):
            answers = yield from stage.new_connections()
            assert answers["wrong"] == 0
            stalls.append(answers["longest_stall"])
        # Other work on this machine may delay one of the three. A connection that waits for a replica takes 3 s.
        assert min(stalls) < 0.1, stalls
        assert max(stalls) < 1, stalls
        lab.begin(victim)
        while stage.level("primary") != "protected" or stage.level("secondary") != "protected":
            yield
        # What is called protected survives.
        answers = yield from stage.new_connections()
        assert answers["wrong"] == 0
        lab.order("failover", "secondary")
        while lab.frame("secondary")["leadership"]["state"] != "promoted":
            yield
        answers = yield from stage.new_connections()
        assert answers["wrong"] == 0
        while "fenced" not in stage.status("secondary")[1]:
            yield
        for side in ("primary", "secondary"):
            assert stage.status(side)[0] == 4
            assert stage.status(side)[1].endswith("the client LAN is at the secondary")

    Stage(script, wiring=wiring, extra={"frame-p": {"resync": "auto"}})


@pytest.mark.usefixtures("privileged")
def test_without_automatic_resync_the_verdict_says_what_is_needed():
    def script(stage):
        lab = stage.lab
        while stage.level("primary") != "protected":
            yield
        lab.end("rew0")
        while lab.frame("primary")["mode"] != "bypass":
            yield
        lab.begin("rew0")
        while "colo resync is needed" not in stage.status("primary")[1]:
            yield
        assert lab.colo("resync", "primary")[0] == 0
        while stage.status("primary")[0] != 0:
            yield

    Stage(script)


@pytest.mark.usefixtures("privileged")
def test_a_guest_that_answers_nothing_is_no_replica():
    """Its interface is down: frames are written to it, and nothing comes back, while the primary's guest answers."""

    def script(stage):
        lab = stage.lab

        def turn(word):
            with netns.inside(lab.namespaces.fds["guest-s"]):
                subprocess.run(["ip", "link", "set", GUEST_IF, word], check=True)

        while stage.level("primary") != "protected":
            yield
        job = lab.popen("client", [*CLIENT, "http", "--seconds", "40", "--timeout", "60"], stdout=subprocess.PIPE)
        while not lab.frame("primary")["flows"]["open"]:
            yield
        turn("down")
        while "guest-s answers nothing" not in lab.frame("secondary")["verdict"]["text"]:
            yield
        assert lab.frame("primary")["mode"] == "enforce"
        with pytest.raises(LabError, match=r"guest-s answers nothing.*--force"):
            lab.order("failover", "secondary")
        while lab.frame("primary")["mode"] != "bypass":
            yield
        answers = yield from stage.new_connections()
        assert (answers["wrong"], answers["longest_stall"] < 1) == (0, True), answers
        turn("up")
        while lab.frame("primary")["mode"] != "enforce" or stage.level("primary") == "unprotected":
            yield
        while job.poll() is None:
            yield
        assert json.loads(job.communicate()[0].splitlines()[-1])["wrong"] == 0

    Stage(script, extra={"frame-p": {"resync": "auto"}})
